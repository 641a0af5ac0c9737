"""What the publishers offer: where it is, how it is recognised, its terms, and how much must be in it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """What a benchmark holds, counted from its split file; None where nothing beside it says so.

    description: K. The last three: the number of examples of each index set.
    """

    images: int
    classes: int
    seen: int | None
    unseen: int | None
    description: int
    trainval: int
    test_seen: int
    test_unseen: int


SIZES = {
    "CUB": Size(11788, 200, 150, 50, 312, 7057, 1764, 2967),
    "AWA1": Size(30475, 50, 40, 10, 85, 19832, 4958, 5685),
    "AWA2": Size(37322, 50, 40, 10, 85, 23527, 5882, 7913),
    "SUN": Size(14340, 717, 645, 72, 102, 10320, 2580, 1440),
    "FLO": Size(8189, 102, None, None, 1024, 5631, 1403, 1155),
    "APY": Size(15339, 32, 20, 12, 64, 5932, 1483, 7924),
}
FEATURES = 2048  # D of the publishers' ResNet-101

# SHA-256 of att_splits.mat as we know it, and of the Proposed Split in it (`fetch.split_digest`): a file that
# was saved again has other bytes and the same split.
SPLITS = {
    "CUB": (
        "4562b1f6306e21dca05071b9b070ce2b15ec659826c8cb87e5ea796b3770df21",
        "4165c97f0b4de4fa3b7e2940e698a65a3d29c444629f3d5527a3e712a4ab7416",
    ),
    "AWA1": (
        "752e0fad7b01b0ad966d7f5d5650817e85fb3008848d5c603b437b4d9219d664",
        "da3f9d1b46c634990f12636a070cc61a0a7abfbb9a4998cca051a9cb39dcd1a9",
    ),
    "AWA2": (
        "dfe0e4f26ef5debaa77eff823a9316ac110e9b809b70d19c72dd11404f7be357",
        "f44e90dd3c9874add416aae0227508ba3fd26e179c4b7e5f8b80cf81b03a1d21",
    ),
    "SUN": (
        "90dcb2a60704ce1117ba1897523ba78dc6b625e606008918c4eade9cd8a5bf43",
        "0d9954cb2213deaeaeae495f28c8f608e27baa4852e312a3b8398701144ce239",
    ),
    "FLO": (
        "f7c2841a236b54c7100f378667ff9a5d1ef7c934a0d3720018c6fffd02ef9a49",
        "80db2ef4d2651ebb6418faa5939f11c9671e9cd1ed443a39897d7a4293dce647",
    ),
    "APY": (
        "7a05d4b3b6af13f30f99f9f3dbfc058cff6f7564aa085bec36b7e768fa26d1b8",
        "4f1074824009dd84c90b58028e502b72b0ca9220d699369013017e7a7967d554",
    ),
}


@dataclass(frozen=True)
class Source:
    """A publisher's file.

    url: the publisher's own address. holds: the folder in the archive that is wanted, and where it is put
    below the root; None for a file that is no archive. known_hash: ``"md5:…"`` or ``"sha256:…"`` as
    published, None where nothing is. size: of the download, about; empty where we do not know.
    """

    url: str
    holds: str | None
    licence: str
    citation: str
    known_hash: str | None = None
    size: str = ""

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[-1]


_SPLIT = (
    "Features and split: Y. Xian, C. H. Lampert, B. Schiele, Z. Akata. Zero-Shot Learning - A Comprehensive "
    "Evaluation of the Good, the Bad and the Ugly. IEEE TPAMI 41(9), 2019."
)
_CUB = (
    "C. Wah, S. Branson, P. Welinder, P. Perona, S. Belongie. The Caltech-UCSD Birds-200-2011 Dataset. "
    "Technical report CNS-TR-2011-001, California Institute of Technology, 2011."
)
_AWA = (
    "C. H. Lampert, H. Nickisch, S. Harmeling. Attribute-Based Classification for Zero-Shot Visual Object "
    "Categorization. IEEE TPAMI 36(3), 2014."
)
_ORIGINS = {
    "CUB": _CUB,
    "AWA1": _AWA,
    "AWA2": _AWA,
    "SUN": "G. Patterson, J. Hays. SUN Attribute Database: Discovering, Annotating, and Recognizing Scene "
    "Attributes. CVPR 2012.",
    "APY": "A. Farhadi, I. Endres, D. Hoiem, D. Forsyth. Describing Objects by Their Attributes. CVPR 2009.",
}
_NO_LICENCE = "The archive names no licence that we know of; the images behind the features have their own."

SOURCES = {
    **{
        name: Source(
            "https://datasets.d2.mpi-inf.mpg.de/xian/xlsa17.zip",
            f"xlsa17/data/{name}",
            licence=_NO_LICENCE,
            citation=f"{_SPLIT}\nData: {origin}",
            size="0.9 GB",
        )
        for name, origin in _ORIGINS.items()
    },
    "FLO": Source(
        "https://datasets.d2.mpi-inf.mpg.de/xian/cvpr18xian.zip",
        "cvpr18xian/data/FLO",
        licence=_NO_LICENCE,
        citation="Features and split: Y. Xian, T. Lorenz, B. Schiele, Z. Akata. Feature Generating Networks "
        "for Zero-Shot Learning. CVPR 2018.\nData: M.-E. Nilsback, A. Zisserman. Automated Flower "
        "Classification over a Large Number of Classes. ICVGIP 2008.\nSentences: S. Reed, Z. Akata, H. Lee, "
        "B. Schiele. Learning Deep Representations of Fine-Grained Visual Descriptions. CVPR 2016.",
    ),
    "CUB-images": Source(
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        "CUB_200_2011",
        licence="The images are for non-commercial research and education only; see the publisher's page.",
        citation=_CUB,
        known_hash="md5:97eceeb196236b17998738112f37df78",
        size="1.2 GB",
    ),
    "AWA2-images": Source(
        "https://cvml.ista.ac.at/AwA2/AwA2-data.zip",
        "Animals_with_Attributes2",
        licence="Each image has its own licence; they are in the archive's folder of licences.",
        citation=f"{_SPLIT}\nAttributes: {_AWA}",
        known_hash="md5:eaa27cf799d5cf55af372356d7281b5e",
        size="13 GB",
    ),
    "resnet34": Source(
        "https://download.pytorch.org/models/resnet34-b627a593.pth",
        None,
        licence="BSD-3-Clause (torchvision). Trained on ImageNet, whose images are for non-commercial "
        "research and education.",
        citation="K. He, X. Zhang, S. Ren, J. Sun. Deep Residual Learning for Image Recognition. CVPR 2016.",
        known_hash="sha256:b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
        size="87 MB",
    ),
}
