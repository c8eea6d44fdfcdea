"""The deployment on Knative: `knative/base` follows from the products' declarations and one table.

declarations ─┐
the table ────┴─ functions ─ services, triggers, eventing ─ manifests ─▶ knative/base ─ kustomize ─▶ rendered
"""
