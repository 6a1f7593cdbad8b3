"""Words beyond the vocabulary of the world: synonyms, hypernyms, caption frames, and absent objects."""

from __future__ import annotations

import functools
import zlib

SYNONYMS = {
    "mug": ("cup",),
    "sofa": ("couch",),
    "carpet": ("rug",),
    "cushion": ("pillow",),
    "bucket": ("pail",),
    "phone": ("smartphone", "mobile phone"),
    "laptop": ("notebook computer", "computer"),
    "clock": ("alarm clock",),
    "plant": ("potted plant", "houseplant"),
    "teddy bear": ("teddy", "stuffed toy"),
    "toy car": ("car", "toy"),
    "shelf": ("bookshelf", "bookcase"),
    "pan": ("frying pan", "skillet"),
    "box": ("carton",),
    "hat": ("cap",),
    "table": ("desk",),
    "plate": ("dish",),
    "basket": ("wicker basket",),
    "lamp": ("table lamp", "light"),
    "floor": ("ground",),
}
HYPERNYMS = {
    "fruit": ("apple", "banana"),
    "food": ("apple", "banana"),
    "furniture": ("chair", "sofa", "table", "stool", "shelf"),
    "a seat": ("chair", "sofa", "stool"),
    "tableware": ("plate", "bowl", "mug", "teapot"),
    "a toy": ("teddy bear", "toy car", "ball"),
    "an electronic device": ("laptop", "phone", "keyboard"),
    "a container": ("box", "basket", "bucket"),
    "a room": ("wall", "floor"),
    "background": ("wall", "floor"),
}
COLOUR_SYNONYMS = {"grey": ("gray",), "purple": ("violet",)}
MATERIAL_WORDS = {
    "wood": ("wooden", "made of wood"),
    "metal": ("metal", "made of metal", "metallic"),
    "plastic": ("plastic", "made of plastic"),
    "ceramic": ("ceramic", "made of ceramic", "porcelain"),
    "glass": ("glass", "made of glass"),
    "fabric": ("fabric", "made of fabric", "cloth"),
    "wicker": ("wicker", "woven"),
    "cardboard": ("cardboard", "made of cardboard"),
    "paper": ("paper", "made of paper"),
    "leather": ("leather", "made of leather"),
    "rubber": ("rubber", "made of rubber"),
    "wax": ("wax", "made of wax"),
    "plush": ("plush", "fluffy"),
    "brick": ("brick", "made of bricks"),
    "tile": ("tiled", "made of tiles"),
    "concrete": ("concrete", "made of concrete"),
    "paint": ("painted",),
    "wallpaper": ("wallpapered",),
    "organic": ("fresh",),
    "leaf": ("leafy",),
}
GENERIC = (
    "object",
    "things",
    "stuff",
    "texture",
    "an object",
    "something",
    "a thing",
    "an image",
    "a photo",
    "anything",
)
FRAMES = (
    "{}",
    "{}",
    "{}",
    "{}",
    "a {}",
    "a {}",
    "a {}",
    "the {}",
    "one {}",
    "my {}",
    "a photo of a {}",
    "a photo of the {}",
    "a picture of a {}",
    "an image of a {}",
    "a close-up of a {}",
    "a rendering of a {}",
    "there is a {}",
    "find the {}",
    "a {} in a room",
    "a blurry photo of a {}",
    "where is the {}",
    "a cropped photo of a {}",
    "this is a {}",
)
NEUTRAL = (
    "big",
    "small",
    "large",
    "little",
    "nice",
    "shiny",
    "old",
    "new",
    "round",
    "clean",
    "single",
    "modern",
)

DISTRACTORS = """
helicopter airplane train bus truck bicycle motorcycle boat ship tractor ambulance scooter skateboard rocket
dog cat horse cow sheep pig elephant giraffe zebra lion tiger rabbit mouse snake bird eagle duck chicken penguin
fish shark whale dolphin turtle frog spider butterfly bee ant monkey kangaroo camel deer fox wolf owl crocodile
person man woman child baby face hand foot nurse soldier dancer policeman
tree flower grass leaf forest mountain river lake ocean beach cloud sky sun moon star snow rain fire rock island
house castle church bridge tower road street fence garage tent window door ceiling stairs elevator roof chimney
refrigerator oven microwave stove sink toaster dishwasher blender kettle fork spoon knife chopsticks spatula whisk
toilet bathtub shower mirror towel soap toothbrush hairdryer curtain blanket mattress bed wardrobe drawer
television monitor printer camera headphones microphone speaker router projector drone robot calculator tablet
guitar piano violin drum trumpet flute saxophone harp accordion
shirt trousers dress jacket coat shoe boot sock glove scarf belt necktie umbrella backpack handbag suitcase wallet
watch ring necklace bracelet crown sunglasses helmet mask
pizza burger sandwich hotdog cake cookie bread cheese egg steak sausage salad soup rice pasta sushi chocolate
orange-juice lemon grape strawberry pear peach pineapple watermelon cherry mango coconut tomato potato carrot onion
broccoli cabbage cucumber pepper pumpkin mushroom corn garlic lettuce bean
hammer screwdriver wrench saw drill axe shovel rake ladder rope chain nail bolt anvil tape scissors pencil pen
crayon eraser ruler stapler envelope newspaper magazine map flag banner poster painting statue trophy medal coin
banknote key lock padlock bell whistle compass telescope microscope thermometer syringe stethoscope bandage pill
football racket dartboard dumbbell surfboard snowboard ski sled kite balloon doll puppet puzzle dice chessboard
fountain bench swing slide mailbox hydrant lamppost billboard scarecrow windmill lighthouse barrel crate anchor
engine wheel tire battery magnet fan heater radiator vacuum broom mop sponge bin hose tap pipe cable plug socket
dinosaur dragon unicorn ghost robot-arm skeleton snowman angel wizard
""".split()  # noqa: E501, SIM905 - one name a line would be 330 lines


@functools.cache
def distractors(held_out: bool) -> tuple[str, ...]:
    """Names of objects that the world lacks; about a fifth is held out of training, for evaluation."""
    return tuple(word for word in DISTRACTORS if (zlib.crc32(word.encode()) % 5 == 0) == held_out)


def corpus() -> list[str]:
    """Phrases for learning the byte-pair merges, the words of the world first."""
    import vocabulary

    phrases = [
        *vocabulary.NOUNS,
        *vocabulary.COLOURS,
        *MATERIAL_WORDS,
        *GENERIC,
        *HYPERNYMS,
        *NEUTRAL,
        "wooden",
    ]
    for words in (*SYNONYMS.values(), *COLOUR_SYNONYMS.values(), *MATERIAL_WORDS.values()):
        phrases += words
    return phrases + [frame.replace("{}", "") for frame in FRAMES] + ["next to and with on an of"]
