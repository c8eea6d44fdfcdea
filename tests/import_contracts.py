"""A contract of import-linter that knows from the declarations which functions run models."""

from __future__ import annotations

from grimp import ImportGraph
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.domain import fields
from importlinter.domain.contract import ContractCheck
from importlinter.domain.imports import ModuleExpression

from layerscope.schemas.products import declared_products

FUNCTIONS = "layerscope.functions"


class TorchFree(ForbiddenContract):
    """`forbidden`, with every function as a source but those whose product reads the model, and those in `run_models`."""

    type_name = "torch_free"

    run_models = fields.SetField(subfield=fields.ModuleExpressionField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        run_models = {one.expression for one in self.run_models}
        run_models |= {f"{FUNCTIONS}.{one.declared.name}" for one in declared_products() if one.declared.reads_model}
        deployed = {one for one in graph.find_children(FUNCTIONS) if f"{one}.func" in graph.modules}
        self.source_modules = self.source_modules | {ModuleExpression(one) for one in deployed - run_models}
        return super().check(graph, verbose)
