"""A recipe: everything that decides the outcome of a run, checked once, frozen, and saved with the run.

Recipes are TOML files: those in `recipes/` by name, yours by path. `base = "NAME"` refines one other recipe.
"""

import json
import math
import re
from collections.abc import Callable, Collection
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from resnetkit.errors import UsageError
from resnetkit.machine.notebook import table
from resnetkit.networks.arch import Arch

LENGTHS = ("epochs", "steps", "examples")
BOUNDS = ("min_steps", "max_steps")
_DURATION = re.compile(r"(\d{1,12}(?:\.\d+)?)\s*(%|epochs?|steps?|examples?)")
MOST = 10**12
"""Of whatever is counted: longer than any run, and small enough to compute with."""
Level = Annotated[float, Field(ge=-1000, le=1000)]
Spread = Annotated[float, Field(gt=0, le=1000)]
Share = Annotated[float, Field(gt=0, le=1)]


def _is_duration(text: str) -> str:
    if not _DURATION.fullmatch(text):
        raise ValueError('a duration is a number and a unit, such as "5 epochs", "400 steps", "50000 examples", "10%"')
    return text


Duration = Annotated[str, AfterValidator(_is_duration)]


class OnResume(Enum):
    """Whether a key may differ from what the run was begun with when it goes on."""

    FREE = "it changes neither the images nor the network"
    WITH_LEAVE = "where it is asked for with --allow-change KEY; the journal says so"
    REFUSED = "it makes another run of it"


Value = TypeVar("Value")
Free = Annotated[Value, OnResume.FREE]
WithLeave = Annotated[Value, OnResume.WITH_LEAVE]
"""Types of keys, and of whole sections, that say so. A key that says nothing is refused: that is never wrong."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


Section = TypeVar("Section", bound=_Section)


class DataRecipe(_Section):
    """Which images, and how they are fed."""

    name: str = Field("digits", description="A named set, a folder of images, a table, an archive, or shards.")
    image_size: int | None = Field(
        None, ge=1, le=4096, description="Side in pixels of what the network sees; none keeps a set's own."
    )
    resize: int | None = Field(
        None, ge=1, le=8192, description="Shorter side before the centre crop; none means image_size."
    )
    batch_size: WithLeave[int] = Field(128, ge=1, le=1_000_000, description="Images in a step, over all devices.")
    micro_batch: WithLeave[int | None] = Field(
        None,
        ge=2,
        le=1_000_000,
        description="Images at a time through the network; the step is that of the whole batch.",
    )
    validation: float = Field(0.1, gt=0, lt=1, description="Share held out to choose the best weights by.")
    train_folder: str | None = Field(
        None,
        description="Subfolder that is the training split; . is the folder itself, with a class in each subfolder.",
    )
    validation_folder: str | None = Field(None, description="Subfolder that is the validation split.")
    test_folder: str | None = Field(None, description="Subfolder that is the test split.")
    group_by: str | None = Field(
        None, description="Regular expression: files in whose names it finds the same are held out together, or not."
    )
    path_column: str | None = Field(None, description="Column of a table with the paths; none finds it by its name.")
    label_column: str | None = Field(None, description="Column of a table with the classes; none finds it by its name.")
    split_column: str | None = Field(
        None, description='Column of a table with the splits; none finds it by its name, "none" takes no column.'
    )
    image_root: str | None = Field(
        None, description="Folder that the paths of a table count from; none is the table's own."
    )
    label_from: str | None = Field(
        None, description='Regular expression whose group is the class in names of files, such as "(cat|dog)".'
    )
    limit: int | None = Field(None, ge=1, le=MOST, description="Train on this many images only (seeded, stratified).")
    mean: tuple[Level, ...] | None = Field(None, description="Of each channel, in 0-1; none takes what is known.")
    std: tuple[Spread, ...] | None = Field(None, description="Of each channel, in 0-1; none takes what is known.")
    sampling: Literal["natural", "balanced"] = Field("natural", description="balanced: each class equally often.")
    allow_missing: bool = Field(False, description="Accept a split that lacks a class.")
    max_unreadable: Free[float] = Field(0.01, ge=0, le=1, description="Share of unreadable images that is left out.")
    workers: Free[int | None] = Field(
        None, ge=0, le=256, description="Processes that decode files; none chooses by the machine."
    )


def _named_transforms(given: Any) -> tuple[tuple[str, dict[str, Any]], ...]:
    """A list of [NAME, {ARGUMENT = VALUE}], also as JSON. Which of them there are, torchvision is asked later."""
    example = 'such as [["ColorJitter", {"brightness": 0.4}], ["RandomInvert"]]'
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is no JSON; it is a list, {example}") from error
    if not isinstance(given, list | tuple):
        raise ValueError(f"it is a list, {example}")
    found = []
    for entry in given:
        name, *rest = entry if isinstance(entry, list | tuple) and entry else (entry,)
        arguments = rest[0] if rest else {}
        if not isinstance(name, str) or len(rest) > 1 or not isinstance(arguments, dict):
            raise ValueError(f"each is a name and its arguments, {example}")
        found.append((name, arguments))
    return tuple(found)


class AugmentRecipe(_Section):
    """Random changes to training images. All are drawn from (seed, epoch, image)."""

    flip: bool = Field(False, description="Mirror left to right, every second time.")
    pad_crop: int = Field(0, ge=0, le=4096, description="Pad by this many pixels, crop back at random.")
    random_resized_crop: bool = Field(False, description="Crop a random part, resize it to image_size.")
    crop_scale: tuple[Share, Share] = Field((0.08, 1.0), description="Area of that part, as shares of the image.")
    trivial_augment: bool = Field(False, description="One random operation of random strength (TrivialAugment).")
    extra: Annotated[str | tuple[tuple[str, dict[str, Any]], ...], BeforeValidator(_named_transforms)] = Field(
        (),
        description='Of torchvision.transforms.v2, by name: [["ColorJitter", {brightness = 0.4}]]; JSON for a flag.',
    )
    random_erasing: float = Field(0.0, ge=0, le=1, description="Probability of blanking a random rectangle.")
    mixup: float = Field(0.0, ge=0, le=1000, description="Alpha of mixup; 0 is off.")
    cutmix: float = Field(0.0, ge=0, le=1000, description="Alpha of cutmix; 0 is off. With mixup: one or the other.")


def _with_fields_of(arch: type[Arch], *, without: Collection[str]) -> Callable[[type[Section]], type[Section]]:
    """Give a section the fields of `arch`, each with its sentence and its bounds; none, unless they are set."""
    known: dict[str, FieldInfo] = vars(arch)["__pydantic_fields__"]
    fields: dict[str, Any] = {
        name: (field.rebuild_annotation() | None, Field(None, description=field.description))
        for name, field in known.items()
        if name not in without
    }

    def extend(section: type[Section]) -> type[Section]:
        return create_model(
            section.__name__, __base__=section, __module__=section.__module__, __doc__=section.__doc__, **fields
        )

    return extend


@_with_fields_of(Arch, without=("in_channels", "num_classes"))
class ModelRecipe(_Section):
    """Which network. All but `name` and `weights` are fields of `Arch`; none keeps the variant's own."""

    name: str = Field("resnet20", description="See `resnetkit list models`.")
    weights: str | None = Field(None, description="Start from these: a name, a file, a folder, a hub id; or none.")


class OptimRecipe(_Section):
    """How parameters move. The learning rate is a function of the step alone."""

    name: Literal["sgd", "adam", "adamw"] = Field("sgd", description="The optimizer.")
    lr: WithLeave[float] = Field(0.1, gt=0, description="Peak learning rate.")
    momentum: WithLeave[float] = Field(0.9, ge=0, lt=1, description="Of sgd alone.")
    nesterov: WithLeave[bool] = Field(True, description="The momentum is Nesterov's.")
    weight_decay: WithLeave[float] = Field(
        1e-4, ge=0, description="Part of itself that each parameter loses, times the rate."
    )
    decay_all: bool = Field(True, description="False spares BatchNorm and biases from weight decay.")
    schedule: WithLeave[Literal["constant", "steps", "cosine", "linear"]] = Field(
        "cosine", description="After the warm-up."
    )
    milestones: WithLeave[tuple[Duration, ...]] = Field((), description="Where `steps` multiplies the rate by gamma.")
    gamma: WithLeave[float] = Field(0.1, gt=0, le=1, description="What `steps` multiplies the rate by.")
    warmup: WithLeave[Duration] = Field("0%", description='For example "5 epochs", "400 steps", "20%".')
    warmup_shape: WithLeave[Literal["linear", "constant"]] = Field(
        "linear", description="constant: at warmup_factor until it ends."
    )
    warmup_factor: WithLeave[float] = Field(0.0, ge=0, le=1, description="Share of lr at the start of the warm-up.")
    label_smoothing: WithLeave[float] = Field(
        0.0, ge=0, lt=1, description="Share of the target spread over all classes."
    )
    layer_decay: WithLeave[float] = Field(
        1.0, gt=0, le=1, description="Factor of the rate for each stage away from the head."
    )
    clip: WithLeave[float | None] = Field(None, gt=0, description="Largest gradient norm.")
    ema: float = Field(0.0, ge=0, lt=1, description="Decay of the averaged weights; 0 is off.")


class TransferRecipe(_Section):
    """What is done with a backbone that has been trained already."""

    mode: Literal["none", "head", "finetune"] = Field(
        "none", description="head: freeze the backbone, solve the classifier. finetune: that first, then train all."
    )
    mirror: bool = Field(False, description="Show the backbone the mirror image too, at twice the cost.")
    crops: int = Field(0, ge=0, le=1000, description="And this many random crops.")
    folds: int = Field(5, ge=2, le=1000, description="Parts of the cross-validation.")
    which: Literal["raw", "ema"] | None = Field(
        None, description="Of weights with a network and its average, which one; none takes the average."
    )


class EarlyStopRecipe(_Section):
    """When a run ends before its length is reached. The best weights are kept in any case."""

    patience: WithLeave[int | None] = Field(
        None,
        ge=1,
        le=MOST,
        description="End after so many validations that are no better; the schedule of the learning rate stays that of "
        "the whole length, so that with cosine or linear the last, lowest rates are never reached.",
    )
    min_delta: WithLeave[float] = Field(
        0.0, ge=0, le=100, description="Points of validation top-1 that count as better; 0: any, or a lower loss."
    )


class CheckpointRecipe(_Section):
    """When a run is saved so that it can go on."""

    every_epochs: int = Field(1, ge=1, le=MOST, description="After so many epochs.")
    every_steps: int | None = Field(None, ge=1, le=MOST, description="And within an epoch, after so many steps.")
    every_minutes: float = Field(10.0, gt=0, le=MOST, description="And after so many minutes.")
    keep: int = Field(2, ge=1, le=MOST, description="Older ones are deleted.")


class Expect(_Section):
    """What the recipe's author measured; `runs` says how often."""

    top1: float | None = Field(None, ge=0, le=100, description="Percent, on the test split.")
    seconds: float | None = Field(None, gt=0, description="Training time on the machine named in the header.")
    runs: int | None = Field(None, ge=1, le=MOST, description="How often it was measured.")


class Recipe(_Section):
    """Everything that decides the outcome of a run."""

    epochs: WithLeave[float | None] = Field(
        None, gt=0, le=1e9, description="Length of training; or steps, or examples."
    )
    steps: WithLeave[int | None] = Field(None, ge=1, le=MOST, description="Length of training in batches.")
    examples: WithLeave[int | None] = Field(None, ge=1, le=MOST, description="Length of training in images.")
    min_steps: WithLeave[int] = Field(
        0, ge=0, le=MOST, description="A length in epochs or examples is at least so long."
    )
    max_steps: WithLeave[int | None] = Field(None, ge=1, le=MOST, description="And at most so long.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="From which every random number is drawn.")
    device: Free[str] = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: WithLeave[Literal["auto", "fp32", "tf32", "bf16", "fp16"]] = Field(
        "auto", description="auto chooses by the hardware."
    )
    freeze: str | None = Field(None, description="Keep the stem and the stages up to this one: layer3, layer1..layer3.")
    class_weights: Literal["none", "balanced"] = Field("none", description="balanced: every class weighs the same.")
    sync_batchnorm: Free[bool] = Field(False, description="BatchNorm over all ranks together; accelerators only.")
    recompute: Free[bool] = Field(False, description="Keep few activations and compute the others again: less memory.")
    data: DataRecipe = DataRecipe()
    augment: WithLeave[AugmentRecipe] = AugmentRecipe()
    model: ModelRecipe = ModelRecipe()
    optim: OptimRecipe = OptimRecipe()
    transfer: TransferRecipe = TransferRecipe()
    early_stop: EarlyStopRecipe = EarlyStopRecipe()
    checkpoint: Free[CheckpointRecipe] = CheckpointRecipe()
    expect: Free[Expect] = Expect()

    def __init__(self, *unnamed: Any, **given: Any) -> None:
        if unnamed:
            raise UsageError("Recipe() takes keys by name", why="such as epochs=…", remedy="load_recipe(NAME)")
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise explained(error) from error

    # To pydantic this is its own: files and flags are checked without it, and say themselves where an error is.
    __init__.__pydantic_base_init__ = True  # pyrefly: ignore

    def total_steps(self, images: int) -> int:
        """Length of the run in steps, for a training split of `images` images."""
        if self.steps is not None:
            return self.steps
        batch = min(self.data.batch_size, images)
        examples = self.examples if self.examples is not None else (self.epochs or 1.0) * images
        steps = max(1, self.min_steps, math.ceil(examples / batch))
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def _repr_html_(self) -> str:
        """The keys that it names."""
        rows = []
        for name, value in self.model_dump(mode="json", exclude_unset=True, exclude_none=True).items():
            keys = {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
            rows += [(key, str(each)) for key, each in keys.items()]
        return table(rows, "recipe; other keys are as by default")

    def to_toml(self) -> str:
        """The resolved recipe as TOML text; loading it gives an equal recipe."""
        import tomli_w

        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def explained(error: ValidationError, file: str | None = None) -> UsageError:
    """The first complaint of pydantic in our words, with the nearest known key where a key is unknown."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    dotted = ".".join(place)
    if first["type"] == "extra_forbidden":
        section: type[BaseModel] = Recipe
        for part in place[:-1]:
            section = type(section.model_fields[part].get_default())
        kinds = {name: type(field.get_default()) for name, field in Recipe.model_fields.items()}
        for name, kind in kinds.items():
            if issubclass(kind, _Section) and place[-1] in kind.model_fields and name not in place:
                return UsageError(f"unknown key {dotted!r}", file=file, remedy=f"{name}.{place[-1]}")
        prefix = ".".join([*place[:-1], ""])
        return UsageError.unknown("key", dotted, [prefix + field for field in section.model_fields], file=file)
    reason = str(first.get("ctx", {}).get("error") or first["msg"])
    return UsageError(
        f"{dotted} = {first['input']!r} cannot be", file=file, why=reason[0].lower() + reason[1:], remedy="--help"
    )


def keys_on_resume(section: type[BaseModel] = Recipe, given: OnResume = OnResume.REFUSED) -> dict[str, OnResume]:
    """Every key of a section by dotted name, with what it says itself, or else its section, or else what is `given`."""
    found: dict[str, OnResume] = {}
    for name, field in section.model_fields.items():
        said = next((mark for mark in field.metadata if isinstance(mark, OnResume)), given)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= {f"{name}.{key}": mark for key, mark in keys_on_resume(field.annotation, said).items()}
        else:
            found[name] = said
    return found


def duration_steps(text: str, *, total_steps: int, images: int, batch_size: int) -> int:
    """A duration such as "5 epochs" or "10%" in whole steps."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is not a duration", remedy='"5 epochs", "400 steps" or "10%"')
    number, unit = float(match[1]), match[2]
    if unit == "%":
        return round(total_steps * number / 100)
    if unit.startswith("step"):
        return round(number)
    return round(number * (images if unit.startswith("epoch") else 1) / batch_size)
