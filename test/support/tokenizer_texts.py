"""Texts for holding tokenizers against one another: made here, from a seed alone."""

import pathlib
import random
import sysconfig
import unicodedata

SENTENCES = """\
It was the best of times, it was the worst of times; they'd said we've seen it, hadn't they?
Der Übergang über die Straße dauert — wie man's nimmt — 3,5 Minuten („höchstens“).
Où êtes-vous allés l'été passé ? À Noël, ça n'a pas coûté 1 200,50 €.
¿Dónde está el pingüino? ¡Ahí! Año 1999, página 42ª.
Zażółć gęślą jaźń. Příliš žluťoučký kůň. Ősz, űrhajó. İstanbul'un ığdırı.
Съешь ещё этих мягких французских булок. Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.
学而时习之，不亦说乎？有朋自远方来，不亦乐乎？１２３４年５月
色は匂へど散りぬるを、我が世誰ぞ常ならむ。ｶﾀｶﾅ ひらがな カタカナー
동해 물과 백두산이 마르고 닳도록 하느님이 보우하사 우리나라 만세.
الحمد لله رب العالمين ١٢٣، مُحَمَّد. שָׁלוֹם עולם, מה נשמע?
धर्मक्षेत्रे कुरुक्षेत्रे समवेता युयुत्सवः। আমার সোনার বাংলা, আমি তোমায় ভালোবাসি।
ข้าพเจ้ารักภาษาไทย ๑๒๓ มากที่สุด မြန်မာ ភាសាខ្មែរ ລາວ བོད་སྐད་
Trăm năm trong cõi người ta, chữ tài chữ mệnh khéo là ghét nhau.
👩‍👩‍👧‍👦 👨🏽‍🚀 🏳️‍🌈 🇩🇪🇫🇷 1️⃣ ❤️‍🔥 🫱🏻‍🫲🏿 ©®™ ☃︎ ☃️
for (int i = 0; i < n && a[i] != 0xFFu; ++i) { s += "\\t" + a[i]->x; }  // don't
def f(x: int = 3, *args, **kw) -> dict[str, list]: return {"a": [x ** 2, 1e-9, None]}
SELECT COUNT(*) FROM t WHERE a >= 10 AND b <> 'x''y'; {"k":[true,null,-1.5E+3]} <a href="#x">&amp;</a>
""".splitlines()

PIECES = (
    list("abcstTSAZéßſKøñяЯως中文かカ한글اكقक्षิ0139٣Ⅷ½²'’\"`.,!?;:-_/\\()[]{}<>|$+=^~#@%&*€°…—。，「」ﬁÅʰªǅ")
    + ["'s", "'RE", "'ll", "don't", "THE", "the ", " of", "123", "4567", "e\u0301", "\u0300", "\u0301\u0323", "q\u0323\u0307"]
    + ["  ", "   ", "\n", "\n\n", "\r\n", "\r", "\t", "\t\t", "\u00a0", "\u3000", "\u2003", "\u0085", "\u2028", "\u200b", "\v", "\f"]
    + ["🙂", "👍🏽", "👩‍💻", "\u200d", "\ufe0f", "🇩🇪", "\0", "\x1f", "\x7f", "\u00ad", "\ufeff", "\ue000", "\U000e0001", "\u0378"]
    + ["▁", "Ġ", "Ċ", "##", "<0x41>", "<0xE2>", "｜", "<|", "|>", "</s>", "<s>", "[INST]", "<think>", "𝔘", "𠀀", "Ａ", "１"]
)
SPACES = [" "] * 6 + ["\n"] * 3 + ["\t", "\r", "\r\n", "\u00a0", "\u3000", "\u2009", "\u0085", "\u2029", "\u1680", "\x1c"]


def code_points(step=1):
    """Every code point that can be written, in texts of a few hundred."""
    text = []
    for code in range(0, 0x110000, step):
        if 0xD800 <= code < 0xE000:
            continue
        if unicodedata.category(chr(code)) in ("Cn", "Co") and code % 61 and code > 0x3000:
            continue  # hundreds of thousands that no table tells apart
        text.append(chr(code))
        if len(text) == 400:
            yield "".join(text)
            text = []
    yield "".join(text)


def long_texts(size):
    """English, code and Chinese of about `size` bytes each."""
    sources = sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    code = "".join(p.read_text(errors="replace") for p in sources[:40])[:size]
    rng = random.Random(7)
    words = [w for p in sources[40:80] for w in p.read_text(errors="replace").split() if w.isalpha()]
    english = " ".join(rng.choices(words, k=size // 6))[:size]
    chinese = "".join(
        chr(rng.randrange(0x4E00, 0x9FA5)) if rng.random() < 0.9 else rng.choice("，。！？、\n")
        for _ in range(size // 3)
    )
    return [english, code, chinese]


def runs(length):
    for unit in ["a", " ", "\n", "\t", "=", "1", "ab", "中", "🙂", "é", "'", "a ", "\u0300", "\r\n", "Aa", ".", "\u00a0"]:
        yield unit * (length // len(unit))


class Random:
    """Endless texts; `marks` are texts of added tokens."""

    def __init__(self, seed, marks=()):
        self.rng = random.Random(seed)
        self.marks = [m for m in marks if len(m) < 100] or [""]
        self.makers = [self.pieces, self.pieces, self.spaces, self.unicode, self.noise, self.marked,
                       self.mixed, self.repeated, self.words]

    def __next__(self):
        return self.rng.choice(self.makers)()

    def __iter__(self):
        return self

    def _count(self, most):
        return max(1, int(most ** self.rng.random()))

    def pieces(self):
        return "".join(self.rng.choices(PIECES, k=self._count(200)))

    def spaces(self):
        return "".join(
            "".join(self.rng.choices(SPACES, k=self.rng.randrange(5))) + self.rng.choice(PIECES)
            for _ in range(self._count(40))
        )

    def unicode(self):
        tops = [0x80, 0x250, 0x3000, 0xD800, 0x11000, 0x20000, 0x110000]
        points = [self.rng.randrange(self.rng.choice(tops)) for _ in range(self._count(200))]
        return "".join(chr(c) for c in points if not 0xD800 <= c < 0xE000)

    def noise(self):
        return self.rng.randbytes(self._count(400)).decode(errors="replace")

    def marked(self):
        parts = []
        for _ in range(self._count(12)):
            mark = self.rng.choice(self.marks)
            cut = self.rng.choice([len(mark), len(mark), len(mark) // 2])
            parts.append(mark[:cut])
            parts.append(self.rng.choice(["", "", " ", "\n", self.rng.choice(PIECES)]))
        return "".join(parts)

    def mixed(self):
        text = self.rng.choice(SENTENCES)
        for _ in range(self._count(10)):
            at = self.rng.randrange(len(text) + 1)
            end = min(len(text), at + self.rng.randrange(4))
            text = text[:at] + self.rng.choice(PIECES + [""]) + text[end:]
        return text

    def repeated(self):
        return self.rng.choice(PIECES) * self._count(600) + self.rng.choice(PIECES)

    def words(self):
        return self.rng.choice(["", " ", "\n"]).join(
            self.rng.choice(SENTENCES) for _ in range(self._count(30))
        )
