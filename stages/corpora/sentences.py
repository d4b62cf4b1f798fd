"""Short sentences of our own with a number in each, in 32 languages, for voices that can read any.

A number belongs to one split by its remainder, so no split shares a sentence with another.
"""

from __future__ import annotations

import numpy as np

from stages.core.params.section import Split

PARTS: tuple[Split, ...] = ("calibration", "tuning", "evaluation", "final")
NUMBERS = 250  # of each split

TEMPLATES: dict[str, tuple[str, ...]] = {
    "ar": ("وصل القطار رقم {} إلى المحطة", "دفعت {} دينارا في السوق", "الرقم هو {}"),
    "bg": ("Влакът тръгва от коловоз {}", "Платих {} лева", "Живеем в стая {}"),
    "ca": ("El tren surt de la via {}", "Hem pagat {} euros", "Vivim al pis número {}"),
    "cmn": ("今天一共来了{}个人", "请把音量调到{}", "火车在{}号站台", "我花了{}块钱买书"),
    "cs": ("Vlak číslo {} má zpoždění", "Zaplatil jsem {} korun", "Sejdeme se u domu {}"),
    "da": ("Toget kører fra spor {}", "Jeg har betalt {} kroner", "Vi bor på værelse {}"),
    "de": ("Der Zug nach Köln fährt auf Gleis {}", "Ich habe {} Euro bezahlt", "Wir wohnen in Zimmer {}"),
    "el": ("Το τρένο φεύγει από τη γραμμή {}", "Πλήρωσα {} ευρώ", "Μένουμε στο δωμάτιο {}"),
    "en": ("Turn to page {} of the book", "The bus number {} is late again", "He walked {} miles home"),
    "en-us": ("Please call me back at {}", "The train leaves from track {}", "She paid {} dollars for it"),
    "es": ("El tren sale del andén {}", "Hemos pagado {} euros", "Vivimos en la calle número {}"),
    "fi": ("Juna lähtee raiteelta {}", "Maksoin siitä {} euroa", "Asumme huoneessa {}"),
    "fr": ("Le train part de la voie {}", "Nous avons payé {} euros", "Ouvrez le livre à la page {}"),
    "hi": ("गाड़ी नंबर {} देर से आएगी", "मैंने {} रुपये दिए", "हम कमरा नंबर {} में रहते हैं"),
    "hr": ("Vlak polazi s kolosijeka {}", "Platio sam {} eura", "Živimo u sobi broj {}"),
    "hu": ("A vonat a {} vágányról indul", "Fizettem {} forintot", "A {} szobában lakunk"),
    "id": ("Kereta berangkat dari jalur {}", "Saya membayar {} rupiah", "Kami tinggal di kamar {}"),
    "it": ("Il treno parte dal binario {}", "Abbiamo pagato {} euro", "Abitiamo nella stanza {}"),
    "ja": ("でんしゃは {} ばんせんから でます", "ほんを {} えんで かいました", "わたしの へやは {} です"),
    "ko": ("기차는 {} 번 승강장에서 떠나요", "책을 {} 원에 샀어요", "우리 방은 {} 호예요"),
    "nb": ("Toget går fra spor {}", "Jeg har betalt {} kroner", "Vi bor på rom {}"),
    "nl": ("De trein vertrekt van spoor {}", "Ik heb {} euro betaald", "Wij wonen op nummer {}"),
    "pl": ("Pociąg odjeżdża z toru {}", "Zapłaciłem {} złotych", "Mieszkamy w pokoju {}"),
    "pt": ("O comboio parte da linha {}", "Pagámos {} euros pelo livro", "Moramos no quarto {}"),
    "ro": ("Trenul pleacă de la linia {}", "Am plătit {} lei", "Locuim în camera {}"),
    "ru": ("Поезд уходит с пути {}", "Я заплатил {} рублей", "Мы живём в комнате {}"),
    "sk": ("Vlak odchádza z koľaje {}", "Zaplatil som {} eur", "Bývame v izbe {}"),
    "sv": ("Tåget går från spår {}", "Jag betalade {} kronor", "Vi bor i rum {}"),
    "sw": ("Treni inaondoka kutoka njia {}", "Nililipa shilingi {}", "Tunakaa chumba namba {}"),
    "tr": ("Tren {} numaralı perondan kalkıyor", "Kitap için {} lira ödedim", "Odamız {} numara"),
    "uk": ("Потяг відходить з колії {}", "Я заплатив {} гривень", "Ми живемо в кімнаті {}"),
    "vi": ("Tàu rời khỏi đường số {}", "Tôi đã trả {} đồng", "Chúng tôi ở phòng {}"),
}


def sentence(language: str, part: Split, rng: np.random.Generator) -> str:
    """Draw a sentence or, one time in four, its number alone, that belongs to `part` and no other."""
    template = "{}" if rng.random() < 0.25 else str(rng.choice(TEMPLATES[language]))
    return template.format(int(rng.integers(NUMBERS)) * len(PARTS) + PARTS.index(part))
