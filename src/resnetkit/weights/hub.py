"""Sharing a classifier on the Hugging Face hub: the model's folder, and a card that says what it is."""

import inspect
import logging
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetkit.arguments import checked, shortened
from resnetkit.artefact import holds_classifier
from resnetkit.classifier import CONFIG, UNKNOWN, Classifier
from resnetkit.errors import CheckpointError, StorageError, UsageError
from resnetkit.machine.storage import sha256_file

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LIBRARY = "resnetkit"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")

_NAME = re.compile(r"[\w.-]{1,48}/[\w.-]{1,96}", re.ASCII)

logger = logging.getLogger("resnetkit")


def model_card(classifier: Classifier, *, licence: str = "apache-2.0", name: str = "model") -> str:
    """A card in the hub's format: what it is, what it was trained on, how good, how to use it. Figures are its own."""
    from huggingface_hub import EvalResult, ModelCardData

    metrics, data = classifier.metrics, classifier.origin.data
    results = None
    if data is not None and "top1" in metrics:
        results = [
            EvalResult(
                task_type="image-classification",
                dataset_type=Path(data).name,
                dataset_name=Path(data).name,
                dataset_split=metrics.get("split", "test"),
                metric_type="accuracy",
                metric_value=round(metrics["top1"] / 100, 6),
            )
        ]
    about = ModelCardData(
        license=licence,
        library_name=LIBRARY,
        pipeline_tag="image-classification",
        tags=["resnet", "image-classification", classifier.model],
        model_name=name,
        eval_results=results,
    )
    preprocess = classifier.preprocess
    mean, std = list(preprocess.mean), list(preprocess.std)
    resize = f"{preprocess.resize or preprocess.size} px, {preprocess.interpolation}"
    lines = [
        f"# {name}",
        "",
        f"A {classifier.model} that tells {len(classifier.classes)} classes apart, made with resnetkit.",
        "",
        "| what | value |",
        "|---|---|",
        f"| input | {preprocess.channels} x {preprocess.size} x {preprocess.size} |",
        f"| normalisation of values in 0-1 | mean {mean}, std {std} |",
        f"| shorter side before the centre crop | {resize} |",
        f"| parameters | {sum(p.numel() for p in classifier.network.parameters()):,} |",
    ]
    if classifier.temperature != 1:
        lines.append(f"| logits are divided by this before the softmax | {classifier.temperature:.6g} |")
    if results:
        lines.append(
            f"| top-1, {metrics['split']} split, {metrics['count']:,} images, one run | {metrics['top1']:.2f} % |"
        )
    if (unknown := classifier.unknown) is not None:
        lines.append(
            f"| told apart as unknown | by {unknown.method}; of known pictures {unknown.share:.0%} are refused |"
        )
    lines += ["", "```python", "import resnetkit", f'classifier = resnetkit.load("{name}")', "```", ""]
    if data is not None:
        import tomli_w

        lines += ["The recipe of the run:", "", "```toml", tomli_w.dumps(classifier.recipe).strip(), "```", ""]
    return f"---\n{about.to_yaml()}\n---\n\n" + "\n".join(lines)


@checked(classifier="resnetkit.load(FOLDER)")
def push(
    classifier: Classifier, repository: str, *, private: bool = False, licence: str = "apache-2.0", **options: Any
) -> str:
    """Put a classifier on the hub as USER/REPOSITORY and return its address; `load(repository)` gives it back.

    Needs HF_TOKEN or a login of the hub's own command. `options` go to the hub's client (`token`, `endpoint`).
    Raises `UsageError` (exit code 2) for a name that cannot be and where there is no token, `StorageError` (exit code
    7) where the hub cannot be reached or refuses.
    """
    from huggingface_hub.errors import HfHubHTTPError

    if not classifier.ours:
        why = f"its network is your own {classifier.model}, and only the weights are saved"
        raise UsageError("nobody else could load the classifier", why=why, remedy="push a network of resnetkit's")
    api = _client(repository, options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = classifier.save(temporary, remember=False)
        (folder / "README.md").write_text(model_card(classifier, licence=licence, name=repository), encoding="utf-8")
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Add {classifier.model}")
        except _client_errors() as error:
            why = str(error).strip().partition("\n")[0] or type(error).__name__
            answered = isinstance(error, HfHubHTTPError | ValueError)
            remedy = (
                f"a token that may write to {repository.partition('/')[0]}, in HF_TOKEN or by `hf auth login`"
                if answered
                else f"once more, when {api.endpoint} can be reached"
            )
            raise StorageError(f"cannot put the model on the hub as {repository}", why=why, remedy=remedy) from error
    return f"{api.endpoint}/{repository}"


def _client(repository: str, options: Mapping[str, Any]) -> "HfApi":
    """The hub's client, where there is something to begin with: a name, a token, leave to use the network."""
    from huggingface_hub import HfApi, constants, get_token

    if not _NAME.fullmatch(repository):
        raise UsageError(f"{shortened(repository)} cannot be a name on the hub", remedy="USER/NAME, such as ada/birds")
    for name in options.keys() - inspect.signature(HfApi).parameters.keys():
        raise UsageError.unknown("argument of push()", name, ("private", "licence", "token", "endpoint"))
    if constants.HF_HUB_OFFLINE:
        raise StorageError(
            f"cannot put the model on the hub as {repository}",
            why="the hub's client is told to stay offline, by HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE",
            remedy="once more, without that variable and with a network",
        )
    if not options.get("token") and not get_token():
        raise UsageError(
            "there is no token for the hub",
            why="only its users may put something there",
            remedy="HF_TOKEN=TOKEN, with one from the hub's settings that may write, or `hf auth login`",
        )
    return HfApi(**options)


def _client_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises, for a name that cannot be too, and lets through of the library below it."""
    from huggingface_hub.errors import HfHubHTTPError

    return (*HfHubHTTPError.__bases__, ValueError)


def fetch_repository(repository: str) -> Path:
    """A repository's settings and weights from the hub's cache, or from the hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub import logging as hub_logging
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    def get(file: str, *, optional: bool = False) -> Path | None:
        try:
            return Path(hf_hub_download(repository, file))
        except LocalEntryNotFoundError:  # offline, and not in the cache: it may be there on the hub
            if optional:
                return None
            raise
        except EntryNotFoundError:
            return None

    hub_logging.set_verbosity_error()  # its retries are told by our one line at the end
    logger.info("looking for %s on the hub and in its cache", repository)
    try:
        config = get(CONFIG)
        weights = get(WEIGHT_FILES[0], optional=True) or get(WEIGHT_FILES[1])
        get("preprocessor_config.json", optional=True)
        if config is not None and holds_classifier(config.parent):
            get(UNKNOWN, optional=True)
    except _client_errors() as error:
        raise CheckpointError(
            f"cannot get {repository} from the hub",
            why=str(error).strip().partition("\n")[0],
            remedy=f"fetch {CONFIG} and {WEIGHT_FILES[0]} by hand into a folder and give its path",
        ) from error
    if config is None or weights is None:
        raise CheckpointError(f"{repository} holds no {CONFIG if config is None else WEIGHT_FILES[0]}")
    _verify_blob(weights)
    return config.parent


def _verify_blob(file: Path) -> None:
    """The hub's cache names a large file by its SHA-256, and checks only its length when it is fetched."""
    blob = file.resolve()
    if len(blob.name) == 64 and sha256_file(blob) != blob.name:
        raise CheckpointError(
            "the file in the hub's cache is damaged", file=blob, why="its SHA-256 is another", remedy="delete it"
        )
