"""Each step finds what was planted for it, and leaves clean pages alone."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from corpus_steps import verdicts_of
from corpus_texts import FOREIGN, SENTENCES, clean, contact_pages, fill, foreign, framed, menus, page

from herd.corpus.documents import Document
from herd.corpus.duplicates import ExactDuplicates, UrlDuplicates, same_page
from herd.corpus.heuristics import Boilerplate, Length
from herd.corpus.identify import probabilities, probabilities_one_by_one
from herd.corpus.language import Language
from herd.corpus.lines import RepeatedLines, in_fences, line_key
from herd.corpus.pii import Pii, luhn, mask
from herd.corpus.repetition import Repetition, _repeated, duplicate_fractions, limits, top_ngram_fraction
from herd.corpus.running import count_stop_words, stop_words
from herd.corpus.step import Verdict
from herd.corpus.words import units


def text_document(text: str, lang: str = "en", source: str = "web", **more: object) -> Document:
    return replace(Document("x", text, lang, source), **more)  # type: ignore[arg-type]


# language


def judged(document: Document) -> Verdict:
    return next(iter(Language().judge_many([document])))


def test_identification_side_by_side_equals_the_package() -> None:
    rng = random.Random(0)
    texts = [
        "",
        "A",
        "SHOUTED WORDS",
        "\U0001f600",
        "12 34",
        *(page(lang, rng) for lang in SENTENCES for _ in range(5)),
    ]
    texts += [fill(template, rng) for template in FOREIGN.values()]
    np.testing.assert_allclose(probabilities(texts), probabilities_one_by_one(texts), atol=2e-4)


def test_wrong_language_is_found_and_clean_pages_stay() -> None:
    assert np.mean([verdict.keep for verdict in Language().judge_many(foreign(300))]) <= 0.05
    assert np.mean([verdict.keep for verdict in Language().judge_many(clean(400))]) >= 0.98


def test_undeclared_pages_are_labelled() -> None:
    pages = clean(160)
    labels = [verdict.edited for verdict in Language().judge_many([replace(document, lang="") for document in pages])]
    right = [label is not None and label.lang == document.lang for label, document in zip(labels, pages, strict=True)]
    assert np.mean(right) >= 0.98


def test_single_declared_sentences_get_the_benefit_of_the_doubt() -> None:
    rng = random.Random(0)
    lines = [text_document(fill(template, rng), lang) for lang, group in SENTENCES.items() for template in group]
    assert np.mean([verdict.keep for verdict in Language().judge_many(lines)]) >= 0.98


def test_a_page_is_what_most_of_it_is() -> None:
    rng = random.Random(1)
    german = "\n\n".join(page("de", rng) for _ in range(6))
    english = page("en", rng)
    assert judged(text_document(f"{english}\n\n{german}", "de")).keep
    assert not judged(text_document(f"{english}\n\n{german}", "en")).keep


@pytest.mark.parametrize("lang", ["code", "en"])
def test_code_and_numbers_are_not_judged(lang: str) -> None:
    text = "def f(x):\n    return x + 1\n" if lang == "code" else "12 + 7 = 19"
    assert judged(text_document(text, lang)).keep


def test_a_language_that_is_not_ours_is_dropped_by_its_declaration() -> None:
    assert judged(text_document(FOREIGN["nl"], "nl")).reason == "other_language"


def test_a_script_of_its_own_is_part_of_the_language() -> None:
    romanised = "Kal main bazaar gaya tha aur wahan se sabzi lekar aaya, phir humne khana banaya."
    assert judged(text_document(romanised, "hi")).reason == "other_script"
    rng = random.Random(3)
    for lang in ("hi", "th"):
        assert judged(text_document(page(lang, rng) + "\n`some_long_command --with options`" * 3, lang)).keep


def test_fenced_code_does_not_decide_the_language() -> None:
    code = "```python\n" + "for value in the_list_of_values:\n    print(value, end=' ')\n" * 40 + "```\n"
    rng = random.Random(2)
    assert judged(text_document(page("es", rng) + "\n" + code, "es")).keep


# length


def test_length_counts_words_of_every_script() -> None:
    step = Length(5, 20)
    assert step.judge(text_document("Too short a text")).reason == "too_short"
    assert step.judge(text_document("ไม่มีใครในหมู่บ้านจำได้ว่าใครปลูกต้นไม้", "th")).keep
    assert step.judge(text_document("word " * 21)).reason == "too_long"


# personal data


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to anna.b+x@mail.example.org today", "write to <email> today"),
        ("call +49 30 1234567 or (555) 123-4567.", "call <phone> or <phone>."),
        ("Tel. 01 23 45 67 89, 555-123-4567", "Tel. <phone>, <phone>"),
        ("from 203.0.113.7 at noon", "from <ip> at noon"),
        ("card 4111 1111 1111 1111 until May", "card <card> until May"),
        ("from 2001:db8:85a3::8a2e:370:7334 at noon", "from <ip> at noon"),
        ("IBAN DE89 3704 0044 0532 0130 00, GB82WEST12345698765432", "IBAN <iban>, <iban>"),
        ("a,030 1234567,NL91ABNA0417164300,b", "a,<phone>,<iban>,b"),
        ("0171/2345678; 06.12.34.56.78; 912 34 56 78; 98765 43210", "<phone>; <phone>; <phone>; <phone>"),
        ("Tel.: 555 2368 or โทร 612 345 678", "Tel.: <phone> or โทร <phone>"),
    ],
)
def test_personal_data_is_masked(text: str, masked: str) -> None:
    assert mask(text)[0] == masked


@pytest.mark.parametrize(
    "text",
    [
        "Python 3.11.7 and version 1.2.3.4.5",
        "bind to 127.0.0.1 or 0.0.0.0",
        "999.1.1.1 is no address",
        "In 1914-1918 and 1939-1945",
        "3.14159265358979 and 1000000000000000",
        "on 2024-07-23 at 10:30:00",
        "the ISBN 978-3-16-148410-0 of it",
        "4111 1111 1111 1112 fails its check digit",
        "@decorator and a@b",
        "12 345 678 people, 1 234 567 cows",
        "1 2 3 4 5 6 7 8 9 10 11 12",
        "https://example.org/0123/456789",
        "DE89 3704 1144 1532 1130 01 fails its check digits",
        "at 10:30:00:15 and std::vector<a::b>, ::1",
        "612 345 678 people on 01.02.2020 10:30",
    ],
)
def test_numbers_are_not_taken_for_personal_data(text: str) -> None:
    assert mask(text) == (text, {}, 0)


@pytest.mark.parametrize(
    ("digits", "right"), [("79927398713", True), ("79927398710", False), ("4111111111111111", True)]
)
def test_luhn(digits: str, right: bool) -> None:
    assert luhn(digits) is right


def test_pages_of_personal_data_are_dropped_and_clean_pages_untouched() -> None:
    step = Pii()
    assert np.mean([step.judge(document).reason == "pii_page" for document in contact_pages(200)]) >= 0.95
    verdicts = [step.judge(document) for document in clean(400)]
    assert np.mean([verdict.keep and verdict.edited is None for verdict in verdicts]) >= 0.98


def test_modes_of_personal_data() -> None:
    contact = contact_pages(1)[0]
    masked = Pii("mask").judge(contact).edited
    assert masked is not None
    assert "@" not in masked.text
    assert Pii("drop").judge(text_document("mail me: a@b.org, " + "word " * 100)).reason == "pii"


# lines


def test_the_frame_of_a_site_goes_and_the_text_stays() -> None:
    pages = framed(30) + clean(100)
    verdicts = list(verdicts_of(RepeatedLines(), pages))
    texts = [(verdict.edited or document).text for verdict, document in zip(verdicts, pages, strict=True)]
    assert not any("Home | News" in text or "cookies" in text or "Menu:" in text for text in texts)
    for before, after in zip(pages, texts, strict=True):
        assert set(before.text.split("\n")) - set(after.split("\n")) <= set(framed(1)[0].text.split("\n"))


def test_a_page_of_nothing_but_frame_is_dropped() -> None:
    empty = text_document("Home | News | About | Contact\n\nMenu: products and prices", id="empty")
    verdicts = list(verdicts_of(RepeatedLines(), [*framed(10), empty]))
    assert verdicts[-1].reason == "only_repeated_lines"


def test_six_documents_may_share_a_line_seven_not() -> None:
    line = "This very line stands everywhere"
    for count, kept in ((6, True), (7, False)):
        pages = [text_document(f"{line}\nown text number {chr(97 + k)} of it", id=str(k)) for k in range(count)]
        texts = [(v.edited or d).text for v, d in zip(verdicts_of(RepeatedLines(), pages), pages, strict=True)]
        assert all((line in text) is kept for text in texts)


def test_refrains_speech_code_and_trusted_sources_keep_their_lines() -> None:
    refrain = text_document("The same refrain again\n" * 20, id="song")
    speech = [text_document(f"— Oui.\nligne {chr(97 + k)} du texte", "fr", id=str(k)) for k in range(20)]
    code = [text_document(f"```\n    return None\n```\nprose of page {chr(97 + k)}", id=f"c{k}") for k in range(20)]
    trusted = [text_document("Q: what is it", source="world", id=f"t{k}") for k in range(20)]
    pages = [refrain, *speech, *code, *trusted]
    for verdict, document in zip(verdicts_of(RepeatedLines(trusted=("world",)), pages), pages, strict=True):
        assert verdict.keep
        assert verdict.edited is None, document


def test_line_key_ignores_numbers_and_structure() -> None:
    assert line_key("Page 12 of 300") == line_key(" page 7  of 9")
    assert line_key("- - - -") == line_key("}") == line_key("2024") == ""


def test_in_fences() -> None:
    assert in_fences(["a", "```py", "x", "```", "b"]) == [False, True, True, True, False]
    assert in_fences(["text", "```\nx", "y\n```", "end"]) == [False, True, True, False]


# boilerplate


def test_menus_are_found_and_clean_pages_stay() -> None:
    step = Boilerplate()
    assert np.mean([step.judge(document).keep for document in menus(200)]) <= 0.05
    assert np.mean([step.judge(document).keep for document in clean(400)]) >= 0.98


def test_notices_symbols_and_ellipses() -> None:
    step = Boilerplate()
    assert step.judge(text_document("We use cookies to improve your visit.\nOur cookie policy")).reason == "notice"
    assert step.judge(text_document("----- **** ==== ab #### ~~~~")).reason == "symbols"
    assert (
        step.judge(text_document("\n".join(f"Read more about part {k}..." for k in range(9)))).reason
        == "ellipsis_lines"
    )
    long = text_document("Diese Website verwendet Cookies.\n" + page("de", random.Random(0)) * 3, "de")
    edited = step.judge(long).edited
    assert edited is not None
    assert "Cookies" not in edited.text
    assert len(edited.text) > 0.9 * len(long.text)


def test_rows_of_links_are_a_menu_and_tables_are_not() -> None:
    links = "\n".join(
        ["Home | About | News", "Sign in | Register", "All the products of this house", "Help | Jobs"] * 2
    )
    assert Boilerplate().judge(text_document(links)).reason == "menu"
    table = "\n".join(
        ["| name | size of the thing | weight |"] + [f"| part {k} | {k} metres | {k} kg |" for k in range(9)]
    )
    assert Boilerplate().judge(text_document(table)).keep


LISTS = {
    "en": "Ferries · Trains · Night buses · Trams · Cable cars · Taxis · Bicycles · Car hire · Airports",
    "de": "Brot, Käse (12), Milch, Honig (3), Nüsse, Obst (40), Gemüse, Fisch, Gewürze (7), Tee",
    "pt": "Pontes | Castelos | Museus | Praias | Igrejas | Jardins | Mercados | Miradouros | Palácios",
    "th": "ช้าง เสือ ลิง ม้า วัว ควาย แพะ แกะ หมู ไก่ เป็ด ห่าน ปลา กุ้ง ปู หอย",
}
FRAMES = {
    "en": "Sign in\nUser name\nPassword\nForgotten your password? Reset it here.\nSign up for an account\nHelp",
    "fr": "Mot de passe oublié ?\nSe connecter\nCréer un compte\nAide\n© 2020 Les Amis du Lac. Tous droits réservés.",
    "hi": "साइन इन करें\nपासवर्ड\nनया पासवर्ड बनाने के लिए यहाँ दबाएँ।\nसाइन अप करें\nसहायता",
}


def test_lists_and_frames_hold_no_running_text() -> None:
    step = Boilerplate()
    for reason, pages in (("list", LISTS), ("frame", FRAMES)):
        assert {lang: step.judge(text_document(text, lang)).reason for lang, text in pages.items()} == dict.fromkeys(
            pages, reason
        )


def test_trusted_sources_need_no_sentences_and_other_languages_are_not_measured() -> None:
    assert Boilerplate(trusted=("world",)).judge(text_document(LISTS["de"], "de", "world")).keep
    assert Boilerplate().judge(text_document(LISTS["en"], "mul")).keep
    assert stop_words("nl") == stop_words("source") == frozenset()


@pytest.mark.parametrize("lang", sorted(SENTENCES))
def test_sentences_hold_stop_words_in_every_language(lang: str) -> None:
    rng = random.Random(5)
    words, stops = np.sum([count_stop_words(page(lang, rng).lower(), lang) for _ in range(20)], axis=0)
    assert stops >= 0.2 * words


def test_a_text_about_cookies_and_passwords_is_no_frame() -> None:
    text = (
        "A cookie is a small piece of text that a server asks the browser to keep.\nThe browser returns it with every "
        "request, so that the server knows who asks.\nLou Montulli thought of it in 1994, when a shop did not want to "
        "hold the baskets of its visitors.\nMost sites tell a visitor by a number in it that the password was right."
    )
    assert Boilerplate().judge(text_document(text)).keep


# repetition


def test_a_manual_page_may_begin_its_entries_alike() -> None:
    verbs = ("names", "sizes", "owners", "dates", "links", "types", "colours")
    entries = [f"- Show all files and also their {verb}:\n\n`lister --show {{{{path}}}} --{verb}`" for verb in verbs]
    assert Repetition().judge(text_document("# lister\n\n" + "\n\n".join(entries))).edited is None
    assert not Repetition().judge(text_document("buy it now and buy it cheap " * 12)).keep


def test_limits_are_those_of_the_paper() -> None:
    assert limits()["duplicate_ngram_characters"] == {str(n): round(0.20 - n / 100, 2) for n in range(5, 11)}
    assert limits()["top_ngram_characters"] == {"2": 0.20, "3": 0.18, "4": 0.16}


def test_duplicate_fractions_by_hand() -> None:
    assert duplicate_fractions("aa\nbb\naa\naa", "\n") == (0.5, 0.5)
    assert duplicate_fractions("", "\n") == (0.0, 0.0)


def test_ngram_fractions_against_a_slow_count() -> None:
    rng = random.Random(0)
    for n in (2, 3, 5):
        words = rng.choices(["a", "bb", "ccc", "dddd", "e"], k=120)
        cut = units(" ".join(words))
        grams = [tuple(words[k : k + n]) for k in range(len(words) - n + 1)]
        most = max(grams.count(gram) for gram in grams)
        longest = max(sum(map(len, gram)) for gram in grams if grams.count(gram) == most)
        expected = most * longest / sum(map(len, words)) if most > 1 else 0.0
        assert top_ngram_fraction(cut, n) == pytest.approx(expected)
        covered = [
            any(grams[k] in grams[:k] for k in range(max(0, i - n + 1), min(i, len(grams) - 1) + 1))
            for i in range(len(words))
        ]
        assert _repeated(cut, n).tolist() == covered


def test_repetitive_pages_are_dropped_and_clean_pages_stay() -> None:
    rng, step = random.Random(3), Repetition()
    bad = [text_document((page("en", rng, 2) + " ") * rng.randint(8, 20)) for _ in range(50)]
    bad += [text_document(f"buy {k} now cheap now " * 40) for k in range(50)]
    assert np.mean([step.judge(document).keep for document in bad]) <= 0.05
    good = [
        text_document("\n".join(page(lang, rng, 8) for _ in range(2)), lang) for lang in SENTENCES for _ in range(20)
    ]
    long_good = clean(200)
    assert (
        np.mean([step.judge(document).edited is None and step.judge(document).keep for document in long_good]) >= 0.98
    )
    assert len(good) == 160


def test_repeated_parts_are_removed_before_a_document_is_given_up() -> None:
    rng = random.Random(4)
    body = page("en", rng, 10)
    log = "\n".join(["ERROR: the connection to the data base was lost, trying again"] * 8)
    verdict = Repetition().judge(text_document(f"{body}\n{log}"))
    assert verdict.keep
    assert verdict.edited is not None
    assert verdict.edited.text.count("ERROR") == 1
    assert verdict.edited.text.startswith(body)


# exact duplicates and URLs


def test_exact_duplicates_ignore_case_and_spacing_but_not_signs() -> None:
    texts = ["Some  Text", "some text", "3 + 4", "3 - 4", "some text "]
    pages = [text_document(text, id=str(k)) for k, text in enumerate(texts)]
    assert [verdict.keep for verdict in verdicts_of(ExactDuplicates(), pages)] == [True, False, True, True, False]


def test_indentation_and_case_matter_in_code() -> None:
    pages = [text_document(text, "code", id=text) for text in ("if a:\n  b", "if a:\nb", "IF a:\n  b", "if a:  \n  b")]
    assert [verdict.keep for verdict in verdicts_of(ExactDuplicates(), pages)] == [True, True, True, False]


def test_the_newest_version_of_a_url_stays() -> None:
    pages = [
        text_document(f"version {k}", id=str(k), url=url, meta={"date": date})
        for k, (url, date) in enumerate(
            [
                ("https://www.a.org/x/", "2023-01-01"),
                ("http://a.org/x#top", "2024-01-01"),
                ("http://a.org/x", "2022-01-01"),
                ("http://a.org/y", ""),
            ]
        )
    ]
    pages.append(text_document("undated part of the same work", id="4", url="http://a.org/x"))
    assert [verdict.keep for verdict in verdicts_of(UrlDuplicates(), pages)] == [False, True, False, True, True]


def test_same_page() -> None:
    assert same_page("HTTPS://www.Example.org/A/") == "example.org/A"
    assert same_page("http://a.org/x?p=1") != same_page("http://a.org/x?p=2")
