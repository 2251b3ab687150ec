"""Small generator of clean pages in eight languages and of planted pages that curation must find."""

from __future__ import annotations

import random

from herd.corpus.documents import Document

NAMES = (
    "Anna",
    "Bruno",
    "Carla",
    "David",
    "Elena",
    "Felix",
    "Greta",
    "Hugo",
    "Irina",
    "Jonas",
    "Karin",
    "Lukas",
    "Maria",
)
PLACES = (
    "Tolvana",
    "Merrick",
    "Ostrava",
    "Quillon",
    "Vesper",
    "Harrowdale",
    "Brindle",
    "Corvane",
    "Delphin",
    "Estmere",
)

SENTENCES = {
    "en": [
        "{a} walked to {p} in the morning because the market there opens early.",
        "The old bridge near {p} was built {n} years ago by people from the valley.",
        "In winter {a} repairs boats and tells the children what the sea was like.",
        "Nobody in {p} remembers who planted the {n} apple trees behind the school.",
        "{a} wrote a letter to the council and asked for a better road to {p}.",
        "When the rain stopped, {n} birds came back to the roof of the house.",
        "The teacher explained how {a} measured the height of the tower with a stick.",
        "At night the lights of {p} can be seen from the other side of the lake.",
        "{a} thinks that bread from {p} tastes better than anything in the city.",
        "Last summer {n} visitors stayed in the small hotel beside the station.",
    ],
    "de": [
        "{a} ging am Morgen nach {p}, weil der Markt dort früh öffnet.",
        "Die alte Brücke bei {p} wurde vor {n} Jahren von Leuten aus dem Tal gebaut.",
        "Im Winter repariert {a} Boote und erzählt den Kindern vom Meer.",
        "Niemand in {p} weiß noch, wer die {n} Apfelbäume hinter der Schule gepflanzt hat.",
        "{a} schrieb einen Brief an den Rat und bat um eine bessere Straße nach {p}.",
        "Als der Regen aufhörte, kamen {n} Vögel auf das Dach des Hauses zurück.",
        "Nachts sieht man die Lichter von {p} von der anderen Seite des Sees.",
        "Im letzten Sommer wohnten {n} Gäste in dem kleinen Hotel neben dem Bahnhof.",
    ],
    "fr": [
        "{a} est allée à {p} le matin parce que le marché y ouvre tôt.",
        "Le vieux pont près de {p} a été construit il y a {n} ans par les gens de la vallée.",
        "En hiver, {a} répare des bateaux et raconte aux enfants comment était la mer.",
        "Personne à {p} ne se souvient de qui a planté les {n} pommiers derrière l'école.",
        "{a} a écrit une lettre au conseil pour demander une meilleure route vers {p}.",
        "Quand la pluie s'est arrêtée, {n} oiseaux sont revenus sur le toit de la maison.",
        "La nuit, on voit les lumières de {p} depuis l'autre rive du lac.",
    ],
    "it": [
        "{a} è andata a {p} la mattina perché il mercato apre presto.",
        "Il vecchio ponte vicino a {p} fu costruito {n} anni fa dalla gente della valle.",
        "D'inverno {a} ripara le barche e racconta ai bambini com'era il mare.",
        "Nessuno a {p} ricorda chi ha piantato i {n} meli dietro la scuola.",
        "{a} ha scritto una lettera al consiglio per chiedere una strada migliore verso {p}.",
        "Quando la pioggia è finita, {n} uccelli sono tornati sul tetto della casa.",
        "Di notte si vedono le luci di {p} dall'altra parte del lago.",
    ],
    "pt": [
        "{a} foi a {p} de manhã porque o mercado abre cedo.",
        "A ponte velha perto de {p} foi construída há {n} anos pelas pessoas do vale.",
        "No inverno {a} conserta barcos e conta às crianças como era o mar.",
        "Ninguém em {p} se lembra de quem plantou as {n} macieiras atrás da escola.",
        "{a} escreveu uma carta ao conselho e pediu uma estrada melhor para {p}.",
        "Quando a chuva parou, {n} pássaros voltaram para o telhado da casa.",
        "À noite as luzes de {p} podem ser vistas do outro lado do lago.",
    ],
    "es": [
        "{a} fue a {p} por la mañana porque el mercado abre temprano.",
        "El viejo puente cerca de {p} fue construido hace {n} años por la gente del valle.",
        "En invierno {a} repara barcos y cuenta a los niños cómo era el mar.",
        "Nadie en {p} recuerda quién plantó los {n} manzanos detrás de la escuela.",
        "{a} escribió una carta al consejo y pidió un camino mejor hacia {p}.",
        "Cuando dejó de llover, {n} pájaros volvieron al tejado de la casa.",
        "De noche se ven las luces de {p} desde el otro lado del lago.",
    ],
    "hi": [
        "{a} सुबह {p} गई क्योंकि वहाँ का बाज़ार जल्दी खुलता है।",
        "{p} के पास का पुराना पुल {n} साल पहले घाटी के लोगों ने बनाया था।",
        "सर्दियों में {a} नावों की मरम्मत करती है और बच्चों को समुद्र की कहानी सुनाती है।",
        "{p} में किसी को याद नहीं कि स्कूल के पीछे {n} सेब के पेड़ किसने लगाए थे।",
        "{a} ने परिषद को पत्र लिखा और {p} तक बेहतर सड़क की माँग की।",
        "जब बारिश रुकी तो {n} पक्षी घर की छत पर लौट आए।",
    ],
    "th": [
        "{a} ไปที่ {p} ในตอนเช้าเพราะตลาดที่นั่นเปิดเร็ว",
        "สะพานเก่าใกล้ {p} ถูกสร้างขึ้นเมื่อ {n} ปีก่อนโดยผู้คนจากหุบเขา",
        "ในฤดูหนาว {a} ซ่อมเรือและเล่าให้เด็กๆ ฟังว่าทะเลเป็นอย่างไร",
        "ไม่มีใครใน {p} จำได้ว่าใครปลูกต้นแอปเปิ้ล {n} ต้นหลังโรงเรียน",
        "{a} เขียนจดหมายถึงสภาและขอถนนที่ดีกว่าไปยัง {p}",
        "เมื่อฝนหยุดตก นก {n} ตัวก็กลับมาที่หลังคาบ้าน",
    ],
}
FOREIGN = {
    "nl": "{a} liep 's ochtends naar {p} omdat de markt daar vroeg opengaat. De oude brug is {n} jaar geleden gebouwd. "
    "Niemand weet nog wie de appelbomen achter de school heeft geplant.",
    "pl": "{a} poszła rano do {p}, ponieważ targ otwiera się tam wcześnie. Stary most zbudowano {n} lat temu. "
    "Nikt nie pamięta, kto zasadził jabłonie za szkołą.",
    "ru": "{a} пошла утром в {p}, потому что рынок там открывается рано. Старый мост построили {n} лет назад. "
    "Никто не помнит, кто посадил яблони за школой.",
    "ja": "{a}は朝、{p}へ行きました。市場が早く開くからです。古い橋は{n}年前に谷の人々によって建てられました。",
    "tr": "{a} sabah {p} kasabasına gitti çünkü pazar orada erken açılıyor. Eski köprü {n} yıl önce yapıldı. "
    "Okulun arkasındaki elma ağaçlarını kimin diktiğini kimse hatırlamıyor.",
}


def fill(template: str, rng: random.Random) -> str:
    return template.format(a=rng.choice(NAMES), p=rng.choice(PLACES), n=rng.randint(3, 999))


def page(lang: str, rng: random.Random, sentences: int = 6) -> str:
    """A clean page: different sentences of one language in a random order, two or three on a line."""
    chosen = [fill(template, rng) for template in rng.sample(SENTENCES[lang], min(sentences, len(SENTENCES[lang])))]
    first = f"{rng.choice(PLACES)} {rng.choice(NAMES)} {rng.randint(1000, 99999)}"
    return "\n".join([first, " ".join(chosen[:3]), " ".join(chosen[3:])]).strip()


def clean(count: int, seed: int = 0) -> list[Document]:
    rng = random.Random(seed)
    langs = list(SENTENCES)
    return [
        Document(f"clean-{index}", page(lang, rng), lang, "world")
        for index in range(count)
        for lang in [langs[index % len(langs)]]
    ]


def foreign(count: int, seed: int = 1) -> list[Document]:
    """Pages in a language that is not ours, or in another one of ours than declared; half of them undeclared."""
    rng = random.Random(seed)
    pages = []
    for index in range(count):
        if index % 3 == 0:
            written, declared = rng.sample(list(SENTENCES), 2)
            text = page(written, rng)
        else:
            declared = "" if index % 3 == 1 else "en"
            text = fill(rng.choice(list(FOREIGN.values())), rng)
        pages.append(Document(f"foreign-{index}", text, declared, "web"))
    return pages


def contact_pages(count: int, seed: int = 2) -> list[Document]:
    """Pages that are lists of persons with their addresses."""
    rng = random.Random(seed)
    pages = []
    for index in range(count):
        lines = []
        for _ in range(rng.randint(4, 9)):
            name, place = rng.choice(NAMES), rng.choice(PLACES)
            phone = f"+{rng.randint(1, 99)} {rng.randint(20, 999)} {rng.randint(1000000, 9999999)}"
            mail = f"{name.lower()}.{rng.randint(1, 9999)}@{place.lower()}.org"
            lines.append(f"{name}, office of the council in {place}: {mail}, {phone}")
        pages.append(Document(f"contact-{index}", "\n".join(lines), "en", "web"))
    return pages


HEAD = "Home | News | About | Contact\nThis website uses cookies. By using it you accept our policy."
FOOT = "Menu: products and prices"


def framed(count: int, seed: int = 3) -> list[Document]:
    """Clean pages inside the same frame of menu and notice."""
    rng = random.Random(seed)
    pages = []
    for index in range(count):
        pages.append(Document(f"framed-{index}", f"{HEAD}\n{page('en', rng)}\n{FOOT}", "en", "web"))
    return pages


def menus(count: int, seed: int = 4) -> list[Document]:
    """Pages of nothing but a menu, each with other words."""
    rng = random.Random(seed)
    return [
        Document(
            f"menu-{index}",
            "\n".join(f"{rng.choice(PLACES)} {rng.choice(NAMES)} {rng.randint(10, 999)}" for _ in range(25)),
            "en",
            "web",
        )
        for index in range(count)
    ]


def changed(text: str, words: int, rng: random.Random) -> str:
    """The text with some of its words replaced."""
    parts = text.split(" ")
    for place in rng.sample(range(len(parts)), words):
        parts[place] = rng.choice(NAMES)
    return " ".join(parts)
