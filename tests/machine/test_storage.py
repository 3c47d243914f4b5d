import hashlib
from io import BytesIO
from pathlib import Path

from resnetkit.machine.storage import sha256, sha256_file


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than one piece
    (tmp_path / "file").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert sha256_file(tmp_path / "file") == sha256(content) == expected
    with (tmp_path / "file").open("rb") as stream:
        stream.seek(1000)
        assert sha256_file(stream) == hashlib.sha256(content[1000:]).hexdigest()
    assert sha256_file(BytesIO(content)) == expected
