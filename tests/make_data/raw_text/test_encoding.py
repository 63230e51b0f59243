"""The encoding of raw files, with and without a hint of their language."""

from __future__ import annotations

from pathlib import Path

import pytest

from bert_pretrain.config.languages import LANGUAGES
from bert_pretrain.config.make_data import TextConfig
from bert_pretrain.make_data.raw_text import decoding
from bert_pretrain.make_data.raw_text.encoding import Encoding, NotTextError, find_encoding
from bert_pretrain.make_data.raw_text.sources import Source

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


def write(path: Path, content: bytes) -> Source:
    path.write_bytes(content)
    return Source(str(path), "text", "", len(content))


def read(source: Source, encoding: str) -> str:
    return "".join(f"{line}\n" for line in decoding.lines(source, encoding))


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
