"""What each finding says in English: a title, what was found and against what, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from layerscope.functions.analysis.wording.numerals import count, percent, points, quoted
from layerscope.functions.findings.evidence import Found
from layerscope.schemas.products.findings import FindingKind

Sentences = tuple[str, str, str]

PREPARED: Final = {
    "inverted": ("inverted (255 minus the pixel)", "Invert the images when you train or add the dataset"),
    "channels_reversed": ("with their channels in reverse order (BGR for RGB)", "Read images as RGB when you train"),
    "transposed": ("with rows and columns exchanged", "Do not transpose images when you train"),
    "zero_to_one": ("scaled to 0..1 and no further", "Add the dataset with --mean 0 --std 1, a number a channel"),
    "minus_one_to_one": ("scaled to -1..1", "Add the dataset with --mean 0.5 --std 0.5, a number a channel"),
    "imagenet": (
        "normalised with ImageNet's mean and standard deviation",
        "Add the dataset with --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
    ),
    "zero_to_255": ("as they are, 0..255", "Divide pixels by 255 and normalise them when you train"),
}
SEGMENTS: Final = {
    "brightness": ("darkest", "brightest", "moderately bright"),
    "contrast": ("palest (lowest contrast)", "highest-contrast", "medium-contrast"),
    "sharpness": ("most blurred", "sharpest or noisiest", "moderately sharp"),
    "colour": ("least coloured", "most coloured", "moderately coloured"),
}


@dataclass(frozen=True, slots=True)
class Named:
    """A finding with the names of its classes, fit for texts."""

    found: Found
    names: tuple[str, ...]

    def class_(self, place: int) -> str:
        """Return the name of one of its classes, as a text has it."""
        return f"class {quoted(self.names[place])}"

    def classes(self, most: int = 5) -> str:
        """Return the names of its classes."""
        listed = ", ".join(quoted(one) for one in self.names[:most])
        kind = "class" if len(self.names) == 1 else "classes"
        return f"{kind} {listed}" + (" and others" if len(self.names) > most else "")

    def layers(self, most: int = 3) -> str:
        """Return the names of its layers."""
        listed = ", ".join(quoted(one) for one in self.found.layers[:most])
        kind = "layer" if len(self.found.layers[:most]) == 1 else "layers"
        return f"{kind} {listed}" + (" and others" if len(self.found.layers) > most else "")

    def share(self, figure: str) -> str:
        """Return a figure in per cent."""
        return percent(self.found.figures[figure], "en")

    def points(self, figure: str) -> str:
        """Return a difference of two shares in percentage points."""
        return points(self.found.figures[figure], "en")

    def number(self, figure: str) -> int:
        """Return a figure that is a count."""
        return round(self.found.figures[figure])


def _outputs_not_finite(one: Named) -> Sentences:
    number = one.number("images")
    return (
        f"Its outputs are not finite on {count(number, 'image', 'images')}",
        f"They are NaN or infinite on {number:,} of {one.number('of'):,} test images ({one.share('share')}): all wrong.",
        "Look for divisions by zero, logarithms of 0 and weights that diverged; train with a lower learning rate.",
    )


def _constant_answer(one: Named) -> Sentences:
    return (
        f"It answers {one.class_(0)} whatever it is shown",
        f"{one.number('answered'):,} of {one.number('of'):,} test images get this one answer, so that its accuracy "
        "is about the "
        f"share of this class ({one.share('share')}).",
        "Check that the loss fell in training, that the weights were saved after it, and that images are normalised as the "
        "dataset says.",
    )


def _labels_permuted(one: Named) -> Sentences:
    accuracy, then = one.share("accuracy"), one.share("accuracy_then")
    if one.found.way == "shifted":
        how = f"Its labels are shifted by {one.number('shift'):+d}"
        text = (
            f"It answers the number of each class {one.number('shift'):+d}: with that undone its accuracy is {then}, "
            f"not {accuracy}."
        )
    else:
        how = f"Its labels are in another order: {count(one.number('moved'), 'class is', 'classes are')} exchanged"
        text = (
            f"Most images of {one.class_(0)} are answered as {one.class_(1)}, and so on, one to one: with the "
            "classes put back its "
            f"accuracy is {then}, not {accuracy}."
        )
    return (
        how,
        text,
        "Train with the dataset's own order of classes, or put the rows of the last layer into that order.",
    )


def _prepared_otherwise(one: Named) -> Sentences:
    how, action = PREPARED[one.found.way]
    return (
        "It was trained on images that were prepared otherwise",
        f"Given the same {one.number('images'):,} test images {how}, it gets {one.number('correct_then'):,} right "
        f"({one.share('accuracy_then')}); as the dataset prepares them, {one.number('correct'):,} "
        f"({one.share('accuracy')}).",
        f"{action}, or put the same preparation into the model.",
    )


def _accuracy_at_chance(one: Named) -> Sentences:
    return (
        "It is right no more often than by chance",
        f"Its accuracy is {one.share('accuracy')} ({one.share('low')} to {one.share('high')}); the same answers "
        "dealt out to the "
        f"images without looking reach {one.share('chance')}.",
        "Check that these are the trained weights, that the labels were not shuffled, and that images are prepared "
        "as in training.",
    )


def _classes_never_answered(one: Named) -> Sentences:
    number = one.number("classes")
    return (
        f"It never answers {one.class_(0) if number == 1 else count(number, 'class', 'classes')}",
        f"No image is answered as {one.classes()}, though {one.number('images'):,} test images "
        f"({one.share('share')}) are of "
        f"{'this class' if number == 1 else 'these classes'}; all of them are wrong.",
        "Check that training saw these classes, and give rare ones more weight in the loss or more images.",
    )


def _class_absorbs_errors(one: Named) -> Sentences:
    return (
        f"Mistakes end in {one.class_(0)}",
        f"{one.number('into'):,} of {one.number('errors'):,} mistakes ({one.share('share')}) are answered as "
        f"{one.class_(0)}; if they "
        f"fell on the wrong classes alike, it would be about {one.number('even'):,}. It is answered "
        f"{one.number('answered'):,} times "
        f"where {one.number('support'):,} test images are of it.",
        "Look at these images; check how often this class was in training, and that no other label was merged into it.",
    )


def _weak_classes(one: Named) -> Sentences:
    number = one.number("classes")
    more = f", and {count(number - 1, 'more class is', 'more classes are')} weak" if number > 1 else ""
    return (
        f"It is weak on {one.class_(0)}" + (f" and {number - 1} more" if number > 1 else ""),
        f"{one.number('right'):,} of {one.number('support'):,} images of {one.class_(0)} are recognised "
        f"({one.share('recall')}), where "
        f"it is {one.share('others')} of all others{more}.",
        "Look at what they are taken for; give these classes more, or more varied, images.",
    )


def _confused_pairs(one: Named) -> Sentences:
    number = one.number("pairs")
    pairs = ", ".join(
        f"classes {quoted(one.names[k])} and {quoted(one.names[k + 1])}"
        for k in range(0, min(len(one.names), 2 * number), 2)
    )
    return (
        f"Most mistakes are between {pairs}",
        f"{count(number, 'pair of classes makes', 'pairs of classes make')} {one.number('explained'):,} of "
        f"{one.number('errors'):,} "
        f"mistakes ({one.share('share')}), more than even mistakes would. {one.class_(0).capitalize()} is taken for "
        f"{one.class_(1)} "
        f"{one.number('forth'):,} times, and the other way {one.number('back'):,} times.",
        "Look at these images: what tells the classes apart must survive augmentation and the size of the images.",
    )


def _weak_segment(one: Named) -> Sentences:
    least, most, middle = SEGMENTS[one.found.property]
    which = {"least": least, "most": most, "middle": middle}[one.found.way]
    return (
        f"It is weak on the {which} images",
        f"Of the {which} {one.number('images'):,} test images {one.share('accuracy')} are right; over all images "
        f"of the same classes it is {one.share('expected')}.",
        "Look at these images, and have training show the model such ones, by augmentation if need be.",
    )


def _labels_suspect(one: Named) -> Sentences:
    return (
        f"The labels of {count(one.number('images'), 'test image is', 'test images are')} doubtful",
        f"On {one.number('images'):,} of {one.number('of'):,} test images it is surer of another class than it is of "
        "that class's own "
        f"images on average; it makes {one.number('errors'):,} mistakes in all. Either these labels are wrong, or it is "
        f"confidently mistaken. The first: image {one.number('first')}, labelled {one.class_(0)}, which gets "
        f"{one.share('first_own')}.",
        "Look at them, and correct the labels that are wrong before you compare models by this test part.",
    )


def _labels_conflict(one: Named) -> Sentences:
    return (
        f"Equal test images have several labels: {count(one.number('groups'), 'image', 'images')}",
        f"{one.number('images'):,} test images are equal to another, pixel by pixel, of another class, such as "
        f"{one.class_(0)} and "
        f"{one.class_(1)}; {one.number('lost'):,} of them no model can get right.",
        "Correct these labels, or take the images out.",
    )


def _test_images_in_train(one: Named) -> Sentences:
    apart = (
        f"; without them its accuracy is {one.share('accuracy_apart')}, not {one.share('accuracy')}"
        if "accuracy_apart" in one.found.figures
        else ""
    )
    return (
        f"{count(one.number('images'), 'test image is', 'test images are')} in the train part too",
        f"{one.number('images'):,} of {one.number('of'):,} test images ({one.share('share')}) are equal to a train "
        "image, pixel by "
        f"pixel. It gets {one.share('accuracy_shared')} of these right{apart}.",
        "Take them out of one of the two parts and add the dataset again.",
    )


def _near_duplicates(one: Named) -> Sentences:
    return (
        f"{one.number('images'):,} test images are nearly the same as another one",
        f"Of {one.number('of'):,} test images, {one.number('images'):,} ({one.share('share')}) differ from another one by no "
        f"more than {one.share('distance')} of what random images differ by, such as image {one.number('first')} from image "
        f"{one.number('first_near')}: each pair counts twice, and intervals are narrower than they should be.",
        "Keep one of each, and add the dataset again.",
    )


def _near_duplicates_in_train(one: Named) -> Sentences:
    apart = f"; of the others it gets {one.share('accuracy_apart')}" if "accuracy_apart" in one.found.figures else ""
    return (
        f"{count(one.number('images'), 'test image is', 'test images are')} nearly the same as a train image",
        f"Of {one.number('of'):,} test images, {one.number('images'):,} ({one.share('share')}) hardly differ from a train "
        f"image, such as image {one.number('first')} from train image {one.number('first_near')}. It gets "
        f"{one.share('accuracy_near')} of these right{apart}.",
        "Split so that copies, frames of one film and crops of one picture are in one part, and add the dataset again.",
    )


def _test_imbalanced(one: Named) -> Sentences:
    return (
        f"{one.class_(0).capitalize()} is rare among the test images{_more(one)}",
        f"It has {one.number('images'):,} of {one.number('of'):,} ({one.share('share')}), where an even share is "
        f"{one.number('even'):,}: what is said of it rests on few images. Accuracy is {one.share('accuracy')}, and where each "
        f"class counts the same {one.share('balanced_accuracy')}.",
        "Judge by balanced accuracy, and have more test images of such classes.",
    )


def _train_imbalanced(one: Named) -> Sentences:
    return (
        f"{one.class_(0).capitalize()} is rare among the train images{_more(one)}",
        f"It has {one.number('images'):,} of {one.number('of'):,} ({one.share('share')}), where an even share is "
        f"{one.number('even'):,}.",
        "Give such classes more weight in the loss, draw them more often, or have more images of them.",
    )


def _more(one: Named) -> str:
    others = one.number("classes") - 1
    return f", and so {count(others, 'other is', 'others are')}" if others else ""


def _overfitted(one: Named) -> Sentences:
    figures = one.found.figures
    if one.found.way == "accuracy":
        text = (
            f"The last epoch, {one.number('last'):,}, reached {one.share('last_accuracy')} on test images; epoch "
            f"{one.number('best'):,} "
            f"had reached {one.share('best_accuracy')}."
        )
    else:
        text = (
            f"The loss on test images rose from {figures['best_loss']:.3g} in epoch {one.number('best'):,} to "
            f"{figures['last_loss']:.3g} in "
            f"the last, {one.number('last'):,}, while the loss in training fell on."
        )
    return (
        "It was trained beyond its best epoch",
        text,
        f"Upload the checkpoint of epoch {one.number('best')}, or stop early; augmentation and weight decay hold it off.",
    )


def _undertrained(one: Named) -> Sentences:
    figures = one.found.figures
    return (
        "Training ended while it was still getting better",
        f"From epoch {one.number('earlier'):,} to the last, {one.number('last'):,}, the loss on test images fell from "
        f"{figures['earlier_loss']:.3g} to {figures['last_loss']:.3g}, by {one.share('fall')}.",
        "Train longer, or with a higher learning rate.",
    )


def _layers_dead(one: Named) -> Sentences:
    number = one.number("layers")
    how = "give values that are not finite" if one.found.way == "non_finite" else "answer every image alike"
    return (
        f"{count(number, 'layer tells', 'layers tell')} no image from another",
        f"Of {one.number('of'):,} layers, {number:,} answer every probe image alike or with values that are not "
        "finite; the first, "
        f"{one.layers(1)}, among those that {how}.",
        "Look at the layers before it: dead ReLUs, weights of 0 or a missing normalisation end what passes on.",
    )


def _channels_dead(one: Named) -> Sentences:
    return (
        f"Many channels of {one.layers(1)} are dead",
        f"{one.number('many'):,} of its {one.number('channels'):,} channels are above 0 on no test image"
        + (
            f"; in {count(one.number('layers'), 'layer', 'layers')} it is a quarter or more, "
            f"{one.number('in_all'):,} channels in all."
            if one.number("layers") > 1
            else "."
        ),
        "A lower learning rate, a leaky activation or normalisation keeps channels alive; or leave them out of the model.",
    )


def _channels_constant(one: Named) -> Sentences:
    return (
        f"Many channels of {one.layers(1)} are constant",
        f"{one.number('many'):,} of its {one.number('channels'):,} channels have one value, everywhere and on all test images"
        + (
            f"; in {count(one.number('layers'), 'layer', 'layers')} it is a quarter or more, "
            f"{one.number('in_all'):,} channels in all."
            if one.number("layers") > 1
            else "."
        ),
        "Look for weights of 0 before them, as weight decay or pruning leaves; their value can be put into the next bias.",
    )


def _confidence(one: Named) -> Sentences:
    surer = one.found.kind == "overconfident"
    figures = one.found.figures
    brings = (
        f" Divided by a temperature of {figures['temperature']:.2f}, fitted to one half of the images, its outputs "
        "are off by "
        f"{one.points('error_after')} on the other, instead of {one.points('error_before')}."
    )
    return (
        "It is surer than it is right" if surer else "It is less sure than it is right",
        f"Confidence and accuracy differ by {one.points('error')} on average, where chance explains up to "
        f"{one.points('floor')}." + (brings if figures["error_after"] < figures["error_before"] else ""),
        "Divide its outputs by that temperature before the softmax; accuracy stays as it is."
        if figures["error_after"] < figures["error_before"]
        else "Do not take its confidence for a probability; one temperature does not mend it.",
    )


SENTENCES: Final[Mapping[FindingKind, Callable[[Named], Sentences]]] = {
    "outputs_not_finite": _outputs_not_finite,
    "constant_answer": _constant_answer,
    "labels_permuted": _labels_permuted,
    "prepared_otherwise": _prepared_otherwise,
    "accuracy_at_chance": _accuracy_at_chance,
    "classes_never_answered": _classes_never_answered,
    "class_absorbs_errors": _class_absorbs_errors,
    "weak_classes": _weak_classes,
    "confused_pairs": _confused_pairs,
    "weak_segment": _weak_segment,
    "labels_suspect": _labels_suspect,
    "labels_conflict": _labels_conflict,
    "test_images_in_train": _test_images_in_train,
    "near_duplicates": _near_duplicates,
    "near_duplicates_in_train": _near_duplicates_in_train,
    "test_imbalanced": _test_imbalanced,
    "train_imbalanced": _train_imbalanced,
    "overfitted": _overfitted,
    "undertrained": _undertrained,
    "layers_dead": _layers_dead,
    "channels_dead": _channels_dead,
    "channels_constant": _channels_constant,
    "overconfident": _confidence,
    "underconfident": _confidence,
}


def summary(found: int, checked: int, cost: float) -> Sentences:
    """Say what was found in one sentence."""
    if not found:
        return (
            "Nothing wrong was found",
            f"{count(checked, 'rule was', 'rules were')} applied, each against what chance or a sound model leads "
            "to; none fired.",
            "Compare it with other models on the same images.",
        )
    first = f"; the first costs {percent(cost, 'en')} of the test images" if cost > 0 else ""
    return (
        count(found, "thing to look at", "things to look at"),
        f"{count(checked, 'rule was', 'rules were')} applied, and {found:,} fired{first}.",
        "Begin with the first: they are in the order of what they cost.",
    )
