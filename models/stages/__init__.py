"""A model in the safe form, cut into stages that run one after another, elsewhere if need be, to the same bits.

    functional   steps that change a value in place, written so that they do not
    liveness     what is needed on the far side of each place where the graph could be cut
    stage        a part of a model: the layers and tensors that it needs, and no others, and how it runs
    wire         the values that pass from one stage to the next, as bytes and back
    certificate  the proof, over images, that nothing changes at any cut

After Kang et al. 2017 (Neurosurgeon), with cuts at any value of the graph instead of between layers of a list.
"""

from __future__ import annotations

from layerscope.models.stages.functional import functional
from layerscope.models.stages.liveness import Cut, cuts
from layerscope.models.stages.stage import Stage, stage_of

__all__ = ["Cut", "Stage", "cuts", "functional", "stage_of"]
