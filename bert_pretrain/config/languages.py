"""What is known of the languages of raw text: whose rules divide it into sentences, and how its letters are encoded."""

from __future__ import annotations

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
