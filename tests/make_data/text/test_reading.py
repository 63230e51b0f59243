"""Finding raw files, reading their bytes as text, and their encoding with and without a hint of their language."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from bert_pretrain.config.languages import LANGUAGES
from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data.text import reading
from bert_pretrain.make_data.text.reading import Encoding, NotTextError, TextSource, find_encoding, find_sources

WESTERN = "Der Bär läuft schön über die Straße.\nÉtait-ce déjà l'été à la fenêtre?\n" * 20
TEXTS = {
    "de": "Der Bär läuft schön über die Straße. „Größe zählt“, sagte Frau Müller – und schwieg.\n",
    "pl": "Wczoraj późnym wieczorem spadł śnieg. Dzieci się cieszą, bo jutro będą mogły zjeżdżać na sankach. Źródło "
    "rzeki leży wśród łąk.\n",
    "cs": "Včera pozdě večer začal padat sníh. Děti se těší, že zítra půjdou sáňkovat. Říčka teče loukou.\n",
    "sk": "Včera neskoro večer začal padať sneh. Deti sa tešia, že zajtra pôjdu sánkovať. Ľudia kŕmia vtáky.\n",
    "hu": "Tegnap késő este esni kezdett a hó. A gyerekek örülnek, mert holnap szánkózhatnak. Hűvös őszi szél fújt.\n",
    "hr": "Jučer je kasno navečer počeo padati snijeg. Djeca se vesele što će se sutra sanjkati. Šuma šuti.\n",
    "ru": "Каждый охотник желает знать, где сидит фазан. Быстрая лиса бежит через лес, и снег скрипит.\n",
    "uk": "Вчора пізно ввечері пішов сніг. Діти радіють, бо завтра їздитимуть на санчатах. Її ґанок замело.\n",
    "el": "Χθες αργά το βράδυ άρχισε να χιονίζει. Τα παιδιά χαίρονται πολύ. Ήταν όμορφα.\n",
    "tr": "Dün gece geç saatte kar yağmaya başladı. Çocuklar çok sevindi, çünkü yarın kayacaklar. Şimdi iş var.\n",
    "lt": "Vakar vėlai vakare pradėjo snigti. Vaikai džiaugiasi, nes rytoj važinėsis rogutėmis. Ąžuolas tyli.\n",
    "ja": "今日は天気がいいので、友達と一緒に公園へ行きました。桜の花がとても綺麗でした。\n",
    "zh": "昨天晚上下了大雪。孩子們都很高興,因為明天可以去玩。\n",
    "ko": "어제 밤 늦게 눈이 오기 시작했다. 아이들은 내일 썰매를 탈 수 있어서 기뻐한다.\n",
}  # fmt: skip
# Mac encodings are told apart only by some letters; text of a few lines may have none of them.
BY_LANGUAGE = [
    (language, encoding)
    for language in TEXTS
    for encoding in LANGUAGES[language].encodings
    if not encoding.startswith("mac_") and encoding != "big5hkscs"
]


def source(path: Path, compression: str = "") -> TextSource:
    return TextSource(str(path), "text", compression, path.stat().st_size)


def write(path: Path, content: bytes) -> TextSource:
    path.write_bytes(content)
    return source(path)


def read(source: TextSource, encoding: str = "utf-8") -> str:
    return "".join(f"{line}\n" for line in reading.decoded_lines(source, encoding))


def test_folders_are_searched_and_other_suffixes_counted(tmp_path: Path) -> None:
    names = ["b/x.txt", "b/.hidden.txt", ".git/y.txt", "a.MD", "c/README", "c/z.py", "c/w.jsonl.gz", "i.png", "j.py"]
    for name in [*names, "empty.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if name.startswith("empty") else "text")
    found, left_out = find_sources(f"{tmp_path},{tmp_path}/b")
    assert [(Path(one.path).name, one.form, one.compression) for one in found] == [
        ("a.MD", "markdown", ""), ("x.txt", "text", ""), ("README", "text", ""), ("w.jsonl.gz", "jsonl", ".gz"),
    ]  # fmt: skip
    assert left_out == {".py": 2, ".png": 1, "(empty)": 1}
    assert find_sources(f"{tmp_path}/j.py")[0][0].form == "text"  # named by the user


def test_a_folder_without_text_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("x")
    with pytest.raises(ValueError, match=r"holds no text \(1 \.png\); known are \.htm"):
        find_sources(str(tmp_path))
    with pytest.raises(ValueError, match="no file matches"):
        find_sources(f"{tmp_path}/*.txt")


def test_damaged_places_in_utf8_are_replaced_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes((WESTERN * 30).encode() + b"\xff\xfe" + WESTERN.encode())
    count = [0]
    text = "\n".join(reading.decoded_lines(source(path), "utf-8", count))
    assert text.count("\ufffd") == count[0] == 2 and text.count("Bär") == 31 * 20


def test_bytes_are_counted_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(("a\ufffdbc\ufffd\ufffd" * 9).encode())
    for chunk in (1, 2, 3, 4, 100):
        monkeypatch.setattr(reading, "_CHUNK", chunk)
        assert reading.count_occurrences(source(tmp_path / "a"), "\ufffd".encode()) == 27


def compress(suffix: str, content: bytes) -> bytes:
    if suffix == ".zst":
        zstandard = pytest.importorskip("zstandard")
        return zstandard.compress(content[:9]) + zstandard.compress(content[9:])  # two frames, as zstd -T writes
    return {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[suffix](content)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_compressed_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(compress(suffix, WESTERN.encode()))
    assert read(source(path, suffix)) == WESTERN
    path.write_bytes(compress(suffix, WESTERN.encode())[:-20])
    with pytest.raises(ValueError, match=r"a\.\w+: cannot be read \("):
        read(source(path, suffix))
    path.write_bytes(b"no such format")
    with pytest.raises(ValueError, match=r"a\.\w+: cannot be read \("):
        read(source(path, suffix))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_small_file_that_becomes_a_huge_one_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(compress(suffix, b"a" * 40_000_000))
    with pytest.raises(ValueError, match=r"a\.jsonl\.\w+: becomes more than .* times its size.*decompress it first"):
        find_encoding(source(path, suffix), TextConfig())


def test_a_few_nul_characters_make_no_text_binary(tmp_path: Path) -> None:
    content = (WESTERN * 20).encode() + b"\0"
    assert find_encoding(write(tmp_path / "a.txt", content), TextConfig()).name == "utf-8"


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="a strange file needs no_such_library, which is not installed; run: bash"):
        reading.require_library("no_such_library", "a strange file")


def needs_chardet() -> None:
    pytest.importorskip("chardet", reason="chardet is not installed: bash init_tf.sh --data")


@pytest.mark.parametrize(("language", "encoding"), BY_LANGUAGE)
def test_the_language_tells_the_encoding_of_a_few_lines(tmp_path: Path, language: str, encoding: str) -> None:
    content = TEXTS[language].encode(encoding, "replace")
    source = write(tmp_path / "a.txt", content)
    found = find_encoding(source, TextConfig(language=language))
    assert found.chosen_by == f"--language={language}"
    assert read(source, found.name) == content.decode(encoding)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *((WESTERN, name) for name in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252")),
        (TEXTS["ru"] * 20, "koi8-r"), (TEXTS["ru"] * 20, "cp1251"), (TEXTS["ja"] * 20, "shift_jis"),
        (TEXTS["ja"] * 20, "euc_jp"), (TEXTS["ja"] * 20, "iso2022_jp"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("language", ["en", "pl"])
def test_text_of_another_language_is_found_as_well(tmp_path: Path, text: str, encoding: str, language: str) -> None:
    if not encoding.startswith("utf"):
        needs_chardet()
    source = write(tmp_path / "a.txt", text.encode(encoding))
    found = find_encoding(source, TextConfig(language=language))
    assert read(source, found.name) == text
    assert (found.chosen_by == "its bytes") == encoding.startswith("utf")


def test_a_named_encoding_is_that_of_text_that_is_not_utf8(tmp_path: Path) -> None:
    settings = TextConfig(language="pl", encoding="mac_latin2")
    source = write(tmp_path / "a.txt", TEXTS["pl"].encode("mac_latin2"))
    assert find_encoding(source, settings) == Encoding("mac_latin2", "--encoding")
    assert read(source, "mac_latin2") == TEXTS["pl"]
    assert find_encoding(write(tmp_path / "b.txt", TEXTS["pl"].encode()), settings) == Encoding("utf-8", "its bytes")


@pytest.mark.parametrize("num_ascii", [600_000, 1_100_000, 5_000_000])
def test_bytes_beyond_ascii_tell_the_encoding_wherever_they_are(tmp_path: Path, num_ascii: int) -> None:
    text = "plain\n" * (num_ascii // 6) + WESTERN * 20
    assert find_encoding(write(tmp_path / "a.txt", text.encode()), TextConfig()).name == "utf-8"
    needs_chardet()
    source = write(tmp_path / "b.txt", text.encode("cp1252"))
    assert read(source, find_encoding(source, TextConfig()).name) == text


def test_damaged_places_do_not_change_the_encoding(tmp_path: Path) -> None:
    source = write(tmp_path / "a.txt", (TEXTS["zh"] * 50).encode("cp950") + b"\xff\xff")
    assert find_encoding(source, TextConfig(language="zh-TW")).name == "cp950"
    source = write(tmp_path / "b.txt", (WESTERN * 30).encode() + b"\xff\xfe" + WESTERN.encode())
    assert find_encoding(source, TextConfig(language="de")).name == "utf-8"


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", bytes(range(256)) * 9, b"\1\2\3\4" * 99])
def test_binary_files_are_no_text(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(NotTextError):
        find_encoding(write(tmp_path / "a", content), TextConfig())


@pytest.mark.parametrize(("field", "value"), [("language", "xx"), ("language", "german"), ("encoding", "hex")])
def test_unknown_names_are_refused_with_what_is_known(field: str, value: str) -> None:
    known = {"language": "one of af, am, .*, zh$", "encoding": "give auto, or a name such as cp1250$"}
    with pytest.raises(ValueError, match=f"--{field}={value} is .*{known[field]}"):
        TextConfig(**{field: value}).check()


@pytest.mark.parametrize("code", ["en", "de", "pt-BR", "zh_Hant", "hu"])
def test_known_languages_are_taken(code: str) -> None:
    TextConfig(language=code).check()


def test_each_language_has_the_rules_of_one_with_its_own() -> None:
    for language in LANGUAGES.values():
        assert LANGUAGES[language.rules].rules == language.rules
        for encoding in language.encodings:
            language.letters.encode(encoding, "replace")
