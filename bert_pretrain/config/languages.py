"""What is known of the languages of raw text: whose rules divide it into sentences, and how its letters are encoded."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple, Optional

_WESTERN = ("cp1252", "iso8859-15", "cp850", "mac_roman")
_CENTRAL = ("cp1250", "iso8859-2", "cp852", "mac_latin2")
_ROMANIAN = (*_CENTRAL, "iso8859-16")
_BALTIC = ("cp1257", "iso8859-13", "iso8859-4", "cp775")
_TURKISH = ("cp1254", "cp857")
_CYRILLIC = ("cp1251", "koi8-r", "iso8859-5", "cp866", "mac_cyrillic")
_UKRAINIAN = ("cp1251", "koi8-u", "iso8859-5", "cp1125", "mac_cyrillic")
_GREEK = ("cp1253", "iso8859-7", "cp737")
_RUSSIAN_LETTERS = "абвгдежзийклмнопрстуфхцчшщъыьэюяё"
_ARABIC_LETTERS = "ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىي"


def _two_byte_letters(encoding: str, *first_bytes: int) -> str:
    """The characters of the rows of a national standard of two bytes a character."""
    rows = (bytes((first, second)) for first in first_bytes for second in range(0xA1, 0xFF))
    return b"".join(rows).decode(encoding, "ignore")


# Of ideographs the frequent ones (level 1 of each standard): a wrong encoding gives rare ones.
_JAPANESE_LETTERS = _two_byte_letters("euc_jp", 0xA4, 0xA5, *range(0xB0, 0xD0))
_KOREAN_LETTERS = _two_byte_letters("euc_kr", *range(0xB0, 0xC9))
_CHINESE_LETTERS = _two_byte_letters("gb2312", *range(0xB0, 0xD8)) + _two_byte_letters("big5", *range(0xA4, 0xC7))


class Language(NamedTuple):
    """A language of raw text."""

    rules: str  # the code of the language whose rules divide its text into sentences
    letters: str = ""  # beyond ASCII, lower case
    encodings: tuple[str, ...] = ()  # besides UTF-8, the most frequent first


# In the order of their codes. sentencex has rules of their own for those that name themselves.
LANGUAGES = {
    "af": Language("nl", "áéèêëíîïóôúû", _WESTERN),
    "am": Language("am"),
    "ar": Language("ar", _ARABIC_LETTERS, ("cp1256", "iso8859-6")),
    "az": Language("sk", "çəğıöşü", _TURKISH),
    "be": Language("ru", "абвгдеёжзійклмнопрстуўфхцчшыьэюя", _UKRAINIAN),
    "bg": Language("bg", "абвгдежзийклмнопрстуфхцчшщъьюя", _CYRILLIC),
    "bn": Language("bn"),
    "bs": Language("sk", "čćđšž", _CENTRAL),
    "ca": Language("ca", "àçèéíïòóúü·", _WESTERN),
    "cs": Language("sk", "áčďéěíňóřšťúůýž", _CENTRAL),
    "cy": Language("en", "âêîôûŵŷ", _WESTERN),
    "da": Language("da", "æøåéü", _WESTERN),
    "de": Language("de", "äöüß", _WESTERN),
    "el": Language("el", "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ", _GREEK),
    "en": Language("en"),
    "eo": Language("en", "ĉĝĥĵŝŭ", ("iso8859-3",)),
    "es": Language("es", "ñáéíóúü", _WESTERN),
    "et": Language("fi", "äöüõšž", _BALTIC),
    "eu": Language("es", "ñç", _WESTERN),
    "fa": Language("ar", _ARABIC_LETTERS + "پچژگکی", ("cp1256",)),
    "fi": Language("fi", "äöåšž", _WESTERN),
    "fo": Language("da", "áðíóúýæø", _WESTERN),
    "fr": Language("fr", "àâçèéêëîïôùûüÿœæ", _WESTERN),
    "ga": Language("en", "áéíóú", _WESTERN),
    "gl": Language("pt", "ñáéíóúü", _WESTERN),
    "gu": Language("gu"),
    "he": Language("en", "אבגדהוזחטיךכלםמןנסעףפץצקרשת", ("cp1255", "iso8859-8", "cp862")),
    "hi": Language("hi"),
    "hr": Language("sk", "čćđšž", _CENTRAL),
    "hu": Language("sk", "áéíóöőúüű", _CENTRAL),
    "hy": Language("hy"),
    "id": Language("en"),
    "is": Language("da", "áéíóúýðþæö", _WESTERN),
    "it": Language("it", "àèéìíòóùú", _WESTERN),
    "ja": Language("ja", _JAPANESE_LETTERS, ("cp932", "euc_jp")),
    "ka": Language("en"),
    "kk": Language("kk", "аәбвгғдеёжзийкқлмнңоөпрстуұүфхһцчшщъыіьэюя", ("kz1048", "ptcp154")),
    "kn": Language("kn"),
    "ko": Language("en", _KOREAN_LETTERS, ("cp949", "johab")),
    "lb": Language("de", "äëéöü", _WESTERN),
    "lt": Language("sk", "ąčęėįšųūž", _BALTIC),
    "lv": Language("sk", "āčēģīķļņšūž", _BALTIC),
    "mk": Language("ru", "абвгдѓежзѕијклљмнњопрстќуфхцчџш", ("cp1251", "iso8859-5", "mac_cyrillic")),
    "ml": Language("ml"),
    "mr": Language("mr"),
    "ms": Language("en"),
    "my": Language("my"),
    "nb": Language("da", "æøåéòôü", _WESTERN),
    "ne": Language("hi"),
    "nl": Language("nl", "éëïóöüèê", _WESTERN),
    "nn": Language("da", "æøåéòôü", _WESTERN),
    "no": Language("da", "æøåéòôü", _WESTERN),
    "pa": Language("pa"),
    "pl": Language("pl", "ąćęłńóśźż", _CENTRAL),
    "pt": Language("pt", "áâãàçéêíóôõúü", _WESTERN),
    "ro": Language("en", "ăâîșțşţ", _ROMANIAN),
    "ru": Language("ru", _RUSSIAN_LETTERS, _CYRILLIC),
    "sk": Language("sk", "áäčďéíĺľňóôŕšťúýž", _CENTRAL),
    "sl": Language("sk", "čšžćđ", _CENTRAL),
    "sq": Language("en", "ëç", _WESTERN),
    "sr": Language("sk", "абвгдђежзијклљмнњопрстћуфхцчџшčćđšž", ("cp1251", "cp1250", "iso8859-5", "iso8859-2")),
    "sv": Language("da", "åäöéü", _WESTERN),
    "sw": Language("en"),
    "ta": Language("ta"),
    "te": Language("te"),
    "tl": Language("en"),
    "tr": Language("sk", "çğıöşüâîû", _TURKISH),
    "uk": Language("uk", "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя", _UKRAINIAN),
    "ur": Language("ar"),
    "vi": Language("en"),
    "zh": Language("en", _CHINESE_LETTERS, ("gb18030", "cp950", "big5hkscs")),
}


def find_language(code: str) -> Optional[Language]:
    """The language of a code such as de, pt-BR or zh_Hant; None where it is not known."""
    return LANGUAGES.get(code.lower().replace("_", "-").split("-")[0])


# What the letters of text tell. An ideograph stands for about three letters.
_SCRIPTS = {  # by a language: ranges of letters, and how much a letter counts
    "ja": ("\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f", 3), "zh": ("\u3400-\u9fff\uf900-\ufaff", 3),
    "ko": ("\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3", 3), "ru": ("\u0400-\u052f", 1),
    "el": ("\u0370-\u03ff\u1f00-\u1fff", 1), "ar": ("\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff", 1),
    "he": ("\u0590-\u05ff", 1), "hi": ("\u0900-\u097f", 1), "bn": ("\u0980-\u09ff", 1), "pa": ("\u0a00-\u0a7f", 1),
    "gu": ("\u0a80-\u0aff", 1), "ta": ("\u0b80-\u0bff", 1), "te": ("\u0c00-\u0c7f", 1), "kn": ("\u0c80-\u0cff", 1),
    "ml": ("\u0d00-\u0d7f", 1), "my": ("\u1000-\u109f", 1), "ka": ("\u10a0-\u10ff", 1), "hy": ("\u0530-\u058f", 1),
    "am": ("\u1200-\u137f", 1), "en": ("A-Za-z\u00c0-\u024f\u1e00-\u1eff", 1),
}  # fmt: skip
_LETTERS = {code: re.compile(f"[{ranges}]") for code, (ranges, _) in _SCRIPTS.items()}
_MIN_KANA_SHARE = 0.1  # of kana and ideographs, in Japanese
# Languages of a script, of which the letters tell one; the first where they are equal.
_OF_SCRIPT = {"ru": ("ru", "uk", "be", "bg", "sr", "mk", "kk"), "ar": ("ar", "fa")}
_MAX_FOREIGN_SHARE = 0.005  # more letters of other languages than in the one with the fewest


def tell_language(text: str) -> str:
    """The code of the language that the letters of a text tell; en where they are Latin, and where there are none."""
    if text.isascii():
        return "en"
    weights = {code: len(_LETTERS[code].findall(text)) * weight for code, (_, weight) in _SCRIPTS.items()}
    kana, ideographs = weights["ja"], weights["zh"]
    if kana + ideographs:
        code = "ja" if kana >= _MIN_KANA_SHARE * (kana + ideographs) else "zh"
        weights["ja"] = weights["zh"] = 0
        weights[code] = kana + ideographs
    code = max(weights, key=lambda name: (weights[name], name == "en"))
    return _tell_by_alphabet(text, code) if code in _OF_SCRIPT else code


def _tell_by_alphabet(text: str, script: str) -> str:
    """The language of a script with the smallest alphabet that has about all letters of a text."""
    counts = Counter(_LETTERS[script].findall(text.lower()))
    letters = {char: count for char, count in counts.items() if char.isalpha()}
    total = sum(letters.values())
    alphabets = {code: set(LANGUAGES[code].letters) for code in _OF_SCRIPT[script]}
    foreign = {
        code: sum(count for char, count in letters.items() if char not in alphabet)
        for code, alphabet in alphabets.items()
    }
    most = min(foreign.values()) + _MAX_FOREIGN_SHARE * total
    fitting = [code for code in alphabets if foreign[code] <= most]
    return min(fitting, key=lambda code: (len(alphabets[code]), foreign[code]))
