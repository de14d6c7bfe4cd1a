"""Standard names of categories: the plain nouns that a segmentation model knows (seed 004, V2 rules)."""

# Standard name -> other words for it, in English and Chinese.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "person": ("man", "woman", "boy", "girl", "guy", "lady", "people", "human", "child", "kid", "男人", "女人", "男士",
               "女士", "男孩", "女孩", "人", "人物"),
    "car": ("automobile", "vehicle", "sedan", "汽车", "车", "轿车"),
    "table": ("desk", "桌子", "餐桌"),
    "sofa": ("couch", "settee", "沙发"),
    "lamp": ("light", "lantern", "灯", "台灯"),
    "chair": ("seat", "stool", "椅子"),
    "phone": ("cellphone", "smartphone", "telephone", "手机", "电话"),
    "television": ("tv", "screen", "monitor", "电视"),
    "rose": ("roses", "玫瑰"),
    "flower": ("flowers", "花"),
    "dog": ("puppy", "狗"),
    "cat": ("kitten", "猫"),
    "circle": ("disc", "disk", "ball", "dot", "圆形", "圆"),
    "square": ("box", "block", "正方形", "方块"),
    "triangle": ("三角形", "三角"),
}  # fmt: skip
_STANDARD = {word: name for name, words in SYNONYMS.items() for word in (name, *words)}


def normalise(category: str) -> str:
    """The standard name of a category; a word without one comes back in lower case, without an article.

    >>> normalise("The Woman"), normalise("沙发"), normalise("Teapot")
    ('person', 'sofa', 'teapot')
    """
    word = " ".join(category.lower().split())
    for article in ("the ", "a ", "an "):
        word = word.removeprefix(article)
    if word in _STANDARD:
        return _STANDARD[word]
    if word.endswith("s") and word[:-1] in _STANDARD:
        return _STANDARD[word[:-1]]
    return word


def same_category(one: str, other: str) -> bool:
    """Whether two words name the same category."""
    return normalise(one) == normalise(other)
