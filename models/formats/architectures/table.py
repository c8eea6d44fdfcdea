"""torchvision's classifiers by what their state dicts look like, so that one is known before torchvision is imported.

Data for `architectures`; a test compares it with the installed torchvision, and prints the rows where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Family:
    """What the architectures of one torchvision module share, by names of layers.

    `stem` is the first convolution, `head` the last layer, `auxiliary` what only training uses. `flat` tells whether
    all of the top-level module that holds the head takes (N, features), and so may be replaced as a whole.
    `members` are the architectures: the number of tensors of the body and their `digest` (`architectures.body_digest`).
    """

    stem: str
    head: str
    members: Mapping[str, tuple[int, str]]
    auxiliary: tuple[str, ...] = ()
    flat: bool = True


FAMILIES: Final[tuple[Family, ...]] = (
    Family(
        "features.0",
        "classifier.6",
        {
            "alexnet": (9, "6834a170e5a4ddcb"),
        },
    ),
    Family(
        "features.0.0",
        "classifier.2",
        {
            "convnext_base": (339, "8b9cc35e2cdd5de7"),
            "convnext_large": (339, "7a2c2332182b1540"),
            "convnext_small": (339, "7b5d0795a016cbb3"),
            "convnext_tiny": (177, "bd7e57d579d9680a"),
        },
        flat=False,
    ),
    Family(
        "features.conv0",
        "classifier",
        {
            "densenet121": (604, "9a959514d681d4ee"),
            "densenet161": (804, "da840a03183f4012"),
            "densenet169": (844, "8822c9399ce7d64e"),
            "densenet201": (1004, "a39400564ef213e2"),
        },
    ),
    Family(
        "features.0.0",
        "classifier.1",
        {
            "efficientnet_b0": (309, "635c8a92ccc2401d"),
            "efficientnet_b1": (437, "e3394cb24709bc61"),
            "efficientnet_b2": (437, "7d51e11783f0df76"),
            "efficientnet_b3": (494, "a8fea16f2247a888"),
            "efficientnet_b4": (608, "e732bc64d60fb5d6"),
            "efficientnet_b5": (736, "891ab22cc5fede37"),
            "efficientnet_b6": (850, "8b1d6a29b0810239"),
            "efficientnet_b7": (1035, "eb7e2e2dec929630"),
            "efficientnet_v2_l": (1329, "9cf664960d99cbd0"),
            "efficientnet_v2_m": (961, "8099e7defb7a0ed2"),
            "efficientnet_v2_s": (670, "d0b08b9f29891ef7"),
        },
    ),
    Family(
        "conv1.conv",
        "fc",
        {
            "googlenet": (285, "837016c9e5a1f75c"),
        },
        auxiliary=("aux1", "aux2"),
    ),
    Family(
        "Conv2d_1a_3x3.conv",
        "fc",
        {
            "inception_v3": (470, "2e4d364f63efc4f8"),
        },
        auxiliary=("AuxLogits",),
    ),
    Family(
        "stem.0.0",
        "classifier.5",
        {
            "maxvit_t": (543, "78244c947d7ff603"),
        },
        flat=False,
    ),
    Family(
        "layers.0",
        "classifier.1",
        {
            "mnasnet0_5": (260, "c2fe41193e9258e6"),
            "mnasnet0_75": (260, "f481d6b914240a2c"),
            "mnasnet1_0": (260, "6be2a7191e286be9"),
            "mnasnet1_3": (260, "f0ff929b070452b4"),
        },
    ),
    Family(
        "features.0.0",
        "classifier.1",
        {
            "mobilenet_v2": (260, "5c23421cc71162be"),
        },
    ),
    Family(
        "features.0.0",
        "classifier.3",
        {
            "mobilenet_v3_large": (262, "7f1467a94daa50be"),
            "mobilenet_v3_small": (206, "23084adf510e850f"),
        },
    ),
    Family(
        "stem.0",
        "fc",
        {
            "regnet_x_16gf": (355, "9b767c20404ddbba"),
            "regnet_x_1_6gf": (295, "ee43e1004755c2d3"),
            "regnet_x_32gf": (370, "60dc28554acc13cf"),
            "regnet_x_3_2gf": (400, "f567a478bda4fed8"),
            "regnet_x_400mf": (355, "8b1d8246c1d14885"),
            "regnet_x_800mf": (265, "3292a00366c9ad2c"),
            "regnet_x_8gf": (370, "d287261e74f5dfed"),
            "regnet_y_128gf": (538, "cb6af8a36e121131"),
            "regnet_y_16gf": (367, "77d7fd1ec54c0aa4"),
            "regnet_y_1_6gf": (538, "e7713ca28a609f4f"),
            "regnet_y_32gf": (405, "b3670d19c2f04dd2"),
            "regnet_y_3_2gf": (424, "0a53389b1ddb84c3"),
            "regnet_y_400mf": (329, "54b7a3adea702276"),
            "regnet_y_800mf": (291, "9f7d6e5d657b486e"),
            "regnet_y_8gf": (348, "3ee5997da62fdc1a"),
        },
    ),
    Family(
        "conv1",
        "fc",
        {
            "resnet101": (520, "51d654e06fa8fcda"),
            "resnet152": (775, "2d8cc70a4e9f28d0"),
            "resnet18": (100, "ea111d5ca684895c"),
            "resnet34": (180, "d949d504ae975c36"),
            "resnet50": (265, "86b1d248f911c95c"),
            "resnext101_32x8d": (520, "96ca4dcc8093d366"),
            "resnext101_64x4d": (520, "dc21fcd7a52efebe"),
            "resnext50_32x4d": (265, "8da0c209f645a778"),
            "wide_resnet101_2": (520, "0af437220f41e4b9"),
            "wide_resnet50_2": (265, "e4305e33fc8c0a43"),
        },
    ),
    Family(
        "conv1.0",
        "fc",
        {
            "shufflenet_v2_x0_5": (280, "cec4de2d4f95197a"),
            "shufflenet_v2_x1_0": (280, "165fc49b7d5e46c6"),
            "shufflenet_v2_x1_5": (280, "43baa550e813a035"),
            "shufflenet_v2_x2_0": (280, "fe07e64566ad64fc"),
        },
    ),
    Family(
        "features.0",
        "classifier.1",
        {
            "squeezenet1_0": (49, "e345dafabdf9966a"),
            "squeezenet1_1": (49, "108c57eb126a0921"),
        },
        flat=False,
    ),
    Family(
        "features.0.0",
        "head",
        {
            "swin_b": (350, "c634d75285fe4ee0"),
            "swin_s": (350, "770c16bd724b542e"),
            "swin_t": (182, "62fd663a184450bd"),
            "swin_v2_b": (446, "2181a437c2e6a20f"),
            "swin_v2_s": (446, "9c550c54682f6a2b"),
            "swin_v2_t": (230, "35afb9f78761528b"),
        },
    ),
    Family(
        "features.0",
        "classifier.6",
        {
            "vgg11": (15, "5a5ce06a460446e5"),
            "vgg11_bn": (47, "8d5f0347cb2e3af6"),
            "vgg13": (19, "7cc1b39a850f7b08"),
            "vgg13_bn": (59, "a3985a1b17664e2a"),
            "vgg16": (25, "baec61e5a6f1ed2e"),
            "vgg16_bn": (77, "dd9b5a7a82b6f206"),
            "vgg19": (31, "4c194979cd49d9ac"),
            "vgg19_bn": (95, "4efb46fc5efe92ef"),
        },
    ),
    Family(
        "conv_proj",
        "heads.head",
        {
            "vit_b_16": (149, "17b006823fa4a5fd"),
            "vit_b_32": (149, "36854f049200c473"),
            "vit_h_14": (389, "3c395d5ce5b3892f"),
            "vit_l_16": (293, "a6329623f0a98212"),
            "vit_l_32": (293, "0e7a2e064587cb85"),
        },
    ),
)


def family_of(name: str) -> Family:
    """Return the family of the architecture `name`, which has to be in the table."""
    return next(family for family in FAMILIES if name in family.members)
