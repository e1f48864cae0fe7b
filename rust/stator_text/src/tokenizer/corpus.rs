//! Texts on which a fast engine has to agree with the stable one, id for id, before it is used.

use super::vocabulary::Vocabulary;

/// xorshift64*: the same texts in every process.
struct Random(u64);

impl Random {
    fn next(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize) % bound
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.next(from.len())]
    }
}

const SENTENCES: &[&str] = &[
    "The quick brown fox jumps over the lazy dog. It's 12:30, we'll see; they've said \"don't\", I'd agree!",
    "DON'T SHOUT: IT'S WE'LL I'VE YOU'RE HE'D I'M — it’s we’ll ‘quoted’ “text”… naïve café, façade.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Straße, STRASSE, Maß, ẞ.",
    "Portez ce vieux whisky au juge blond qui fume; l'été, où ça? «Bonjour», dit-elle.",
    "El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia. ¿Qué? ¡Sí! Año 2024.",
    "Pchnąć w tę łódź jeża lub ośm skrzyń fig. Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Їжак, ґанок, Ўзбек.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία· ΌΛΑ ΤΑ ΣΊΓΜΑ ς σ Σ.",
    "人之初，性本善。性相近，习相远。苟不教，性乃迁。《三字经》：“你好”！１２３４５",
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。カタカナとｶﾀｶﾅ、々ー。",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다. 각 ᄀ\u{1161}\u{11a8} 힣",
    "كل عام وأنتم بخير. مُحَمَّدٌ ١٢٣٤٥ لا إله إلا الله ـــ سلام؟",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה. שָׁלוֹם",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश। क्षत्रिय १२३",
    "নমস্কার পৃথিবী। কেমন আছেন? ১২৩৪",
    "யாதும் ஊரே யாவரும் கேளிர். தமிழ் க்ஷ ஸ்ரீ",
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ เป็นมนุษย์สุดประเสริฐเลิศคุณค่า ๑๒๓",
    "မြန်မာစာ ကမ္ဘာ ၁၂၃။ ភាសាខ្មែរ ១២៣ ພາສາລາວ ໑໒໓",
    "ქართული ენა მსოფლიოში. ᲥᲐᲠᲗᲣᲚᲘ Հայերեն լեզու 2023 ԵՒ և",
    "Tiếng Việt: Trăm năm trong cõi người ta, chữ tài chữ mệnh khéo là ghét nhau. Ê ế ể",
    "İstanbul'da ılık iğde; Iğdır ŞİŞLİ. ǅ ǈ ǋ ǲ ᾈ ŉ ﬁ ﬂ ﬃ ﷺ ½ ² ₃ Ⅷ ⅷ ① ⑳ ㈱ ㏒",
    "እንኳን ደህና መጡ ᏣᎳᎩ ꮳꮃꭹ ᓄᓇᕗᑦ ⵜⴰⵎⴰⵣⵉⵖⵜ ߒߞߏ 𐐔𐐯𐑅𐐨𐑉𐐯𐐻 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚 𠀀𠮷𪚥",
    "fn main() {\n    let mut xs: Vec<u32> = (0..10).map(|x| x * x).collect();\n\n    println!(\"{:?}\", xs);\n}\n",
    "def f(x, *args, **kwargs):\n\tif x is None:\n\t\treturn {'a': [1, 2.5e-3], \"b\": f\"{x!r:>10}\"}\n\t# don't\n\n\nclass A: pass\r\n",
    "#include <vector>\nint main(int argc, char** argv) { return argc > 1 && !strcmp(argv[1], \"--help\") ? 0 : ~1; } // 0xFFu\r\n\r\n",
    "<!DOCTYPE html>\n<a href=\"https://example.com/?q=a%20b&c=d#top\">x &amp; y</a><!-- -->\n  <br/>",
    "SELECT * FROM t WHERE a >= 10 AND b <> 'x''y' ORDER BY c DESC LIMIT 5;\n{\"k\": [null, true, -1.0E+10], \"u\": \"\\u00e9\"}",
    "👩‍👩‍👧‍👦 👨🏽‍🚀 🏳️‍🌈 🇩🇪🇫🇷🇯 1️⃣ *️⃣ 👍🏿👍 ❤️❤ ☺︎☺️ 🫠🪿🫨 ©®™ 🧑\u{200d}🤝\u{200d}🧑 \u{200d}\u{fe0f}",
    "e\u{301} a\u{30a}\u{323} q\u{307}\u{323} Å \u{212b} \u{2126} \u{1e9b}\u{323} \u{344} \u{958}\u{0}\u{1f}\u{7f}\u{80}\u{9f}",
    "\u{feff}bom \u{ad}soft \u{200b}zero\u{200c}\u{200d}\u{2060} \u{202e}rtl\u{202c} \u{fffd}\u{fffe}\u{ffff} \u{e000} \u{10ffff}",
    "x=1;y=22;z=333;w=4444;v=55555;1234567890123 3.14159 1,000,000 1e10 0x1F 12ab34 ٣٤٥ १२ Ⅻ ¼ 五",
    "a b  c   d    e     f\n\n\ng\n \nh\t\ti \t \r\n\r\n \u{a0}\u{a0}j\u{2003}k\u{3000}\u{3000}l\u{85}m\u{2028}n\u{2029} \u{1680}o \u{b}\u{c}p   ",
    "ſ's 'ſ K k 'K 'S 'T 'RE 'VE 'M 'LL 'D 's't're've'm'll'd '' ' '' 'x ' s ’s ’T",
    "####  ----  ====  ****  ____  ~~~~ ```` ... .. . ,,, ;;; ::: !!! ??? ((( ))) [[[ ]]] {{{ }}} <<< >>> $$$ ^^^ &&& +++ |||",
    "aB AaB ABc ABC aBC AbCdEf camelCaseWord HTTPServer XMLHttpRequest snake_case kebab-case i18n a1B2 ǅǅ ªº ʰʲ",
];

const SPACES: &[&str] = &[
    " ", " ", " ", "\n", "\n", "\t", "\r", "\r\n", "\u{a0}", "\u{85}", "\u{2003}", "\u{2028}",
    "\u{3000}", "\u{200b}", "\u{1680}", "\u{b}", "\u{c}", "\u{1c}", "\u{feff}", "\u{180e}",
    "\u{205f}",
];

/// One of every kind that the expressions of pre-tokenizers tell apart.
const KINDS: &[&str] = &[
    "a", "b", "s", "t", "re", "ll", "A", "B", "Ab", "ſ", "K", "é", "e\u{301}", "\u{300}", "ǅ", "ʰ",
    "ª", "中", "文", "か", "한", "ا", "क", "\u{94d}", "\u{903}", "ß", "я", "Я", "0", "1", "12",
    "345", "6789", "٣", "Ⅷ", "½", "²", "'", "'", "’", "\"", ".", ",", "!", "?", "-", "_", "/", "(",
    ")", "<", ">", "|", "$", "+", "=", "^", "`", "~", "#", "@", "%", "&", "*", "€", "°", "…", "—",
    "。", "，", "「", "🙂", "👍🏽", "\u{200d}", "\u{fe0f}", "\u{0}", "\u{7f}", "\u{e000}", "\u{378}",
    "𝔘", "𠀀", "▁", "Ġ", "Ċ", "##", "<0x41>", "｜", " ", " ", " ", "  ", "\n", "\n\n", "\t",
    "\r\n", "\u{a0}", "\u{3000}", "\u{200b}", "\u{ad}", "ﬁ", "Å", "ㄱ", "ᄀ", "ｶ", "Ａ", "１", "İ",
    "ı", "ς", "Σ",
];

pub fn texts(vocabulary: &Vocabulary, added: &[&str]) -> Vec<String> {
    let mut r = Random(0x5EED_0F_57A7_0);
    let mut texts: Vec<String> = SENTENCES.iter().map(|s| s.to_string()).collect();
    texts.push(SENTENCES.concat());
    texts.push(SENTENCES.join(" "));
    texts.push(SENTENCES.join("\n\n"));
    texts.push(String::new());
    texts.extend(KINDS.iter().chain(SPACES).map(|s| s.to_string()));

    for _ in 0..400 {
        let n = 1 + r.next(40);
        texts.push((0..n).map(|_| r.pick(KINDS)).collect());
    }
    for _ in 0..120 {
        let n = 1 + r.next(12);
        let mut text = String::new();
        for _ in 0..n {
            for _ in 0..r.next(5) {
                text.push_str(r.pick(SPACES));
            }
            text.push_str(r.pick(KINDS));
        }
        for _ in 0..r.next(4) {
            text.push_str(r.pick(SPACES));
        }
        texts.push(text);
    }
    characters(&mut r, &mut texts);
    new_characters(&mut texts);
    runs(&mut texts);
    tokens(&mut r, vocabulary, &mut texts);
    specials(&mut r, added, &mut texts);
    // Engines have other ways for long texts: all of it once more in one piece.
    let all = texts.join(" ");
    let mut end = all.len().min(70_000);
    while !all.is_char_boundary(end) {
        end -= 1;
    }
    texts.push(all[..end].to_string());
    texts
}

/// Characters from all of Unicode, on their own and between others.
fn characters(r: &mut Random, texts: &mut Vec<String>) {
    let mut text = String::new();
    let mut code = 0usize;
    while code < 0x32000 {
        if let Some(c) = char::from_u32(code as u32) {
            text.push(c);
            // What is split where a letter ends, or is not, shows in what merges behind it.
            let behind = ["", "", " ", "a", "'O", "'s", ".com", "\n\n", " (", "1"];
            text.push_str(r.pick(&behind));
        }
        // Closer where scripts are short.
        code += if code < 0x3400 {
            1 + r.next(5)
        } else {
            1 + r.next(150)
        };
        if text.len() > 600 {
            texts.push(std::mem::take(&mut text));
        }
    }
    for _ in 0..300 {
        if let Some(c) = char::from_u32(r.next(0x11_0000) as u32) {
            text.push(c);
        }
    }
    texts.push(text);
}

/// Letters, marks, digits and symbols that Unicode 15.1 to 17 added: engines know different versions of it.
fn new_characters(texts: &mut Vec<String>) {
    const ADDED: &[u32] = &[
        0x088F, 0x0897, 0x0C5C, 0x0CDC, 0x1ACF, 0x1AE0, 0x1C89, 0x1C8A, 0x20C1, 0x2B96, 0x2FFC,
        0x31E4, 0x31EF, 0xA7CB, 0xA7CC, 0xA7CE, 0xA7CF, 0xA7D2, 0xA7D4, 0xA7DA, 0xA7DC, 0xA7F1,
        0xFBC3, 0xFD90, 0x10297, 0x105C0, 0x10940, 0x10D40, 0x10D4A, 0x10D4E, 0x10D50, 0x10D69,
        0x10D6F, 0x10EC2, 0x10EC5, 0x10ED0, 0x10EFA, 0x10EFC, 0x11380, 0x113B8, 0x113D4, 0x116D0,
        0x116DA, 0x11B60, 0x11BC0, 0x11BF0, 0x11DB0, 0x11DE0, 0x11F5A, 0x13460, 0x143FA, 0x16100,
        0x1611E, 0x16130, 0x16D40, 0x16D70, 0x16EA0, 0x16EBB, 0x16FF2, 0x18CFF, 0x18D80, 0x1CC00,
        0x1CCF0, 0x1CCFA, 0x1CEBA, 0x1E5D0, 0x1E5F0, 0x1E6C0, 0x1E6E3, 0x1E6FE, 0x1F6D8, 0x1F777,
        0x1F8B2, 0x1FA89, 0x1FACD, 0x1FBFA, 0x2B73A, 0x2B81E, 0x2CEA2, 0x2EBF0, 0x2EE5D, 0x323B0,
        0x3324B, 0x33479, 0x33480,
    ];
    for c in ADDED.iter().filter_map(|code| char::from_u32(*code)) {
        texts.push(format!(
            "{c}'O {c}b'O a{c}{c} 1{c}1 {c} .{c}.com 1{c}'s ({c}\"A {c}{c}A\n{c}"
        ));
    }
}

fn runs(texts: &mut Vec<String>) {
    for (unit, times) in [
        ("a", 2000),
        ("A", 300),
        (" ", 2000),
        ("\n", 600),
        ("\t", 300),
        ("\r\n", 200),
        ("=", 1000),
        ("-", 600),
        ("1", 400),
        ("ab", 400),
        ("aB", 200),
        ("the", 300),
        ("é", 300),
        ("中", 400),
        ("🙂", 200),
        ("한", 200),
        ("e\u{301}", 200),
        ("\u{300}", 200),
        ("  \n", 200),
        ("'s", 200),
        ("\u{a0}", 100),
        ("\u{0}", 200),
        ("_", 300),
        (".", 300),
        ("x ", 300),
    ] {
        texts.push(unit.repeat(times));
        texts.push(format!("a {}b", unit.repeat(17)));
    }
}

/// Tokens of the vocabulary, joined at random: what merges with what.
fn tokens(r: &mut Random, vocabulary: &Vocabulary, texts: &mut Vec<String>) {
    let mut text = String::new();
    for _ in 0..4000 {
        let id = r.next(vocabulary.entries.len());
        if let Ok(piece) = std::str::from_utf8(vocabulary.bytes(id)) {
            if piece.len() <= 64 {
                text.push_str(piece);
            }
        }
        if text.len() > 200 + r.next(400) {
            texts.push(std::mem::take(&mut text));
        }
    }
    texts.push(text);
}

fn specials(r: &mut Random, added: &[&str], texts: &mut Vec<String>) {
    let mut text = String::new();
    for (i, token) in added.iter().enumerate() {
        if token.len() > 200 {
            continue;
        }
        match i % 4 {
            0 => text.push_str("a b "),
            1 => text.push('\n'),
            2 => text.push_str("don't"),
            _ => {}
        }
        text.push_str(token);
        if r.next(3) == 0 {
            text.push_str("  x");
        }
        if text.len() > 400 {
            texts.push(std::mem::take(&mut text));
        }
    }
    texts.push(text);
    let short: Vec<&str> = added.iter().copied().filter(|t| t.len() <= 64).collect();
    if short.is_empty() {
        return;
    }
    for _ in 0..250 {
        let mut text = String::new();
        for _ in 0..1 + r.next(6) {
            match r.next(6) {
                0 => text.push_str(r.pick(SPACES)),
                1 => text.push_str(r.pick(KINDS)),
                2 => text.extend(r.pick(SENTENCES).chars().take(5)),
                3 => {
                    // A part of one, so that the next may overlap it.
                    let token = short[r.next(short.len())];
                    let cut = token.chars().count() / 2;
                    text.extend(token.chars().take(cut));
                }
                _ => text.push_str(short[r.next(short.len())]),
            }
        }
        texts.push(text);
    }
}
