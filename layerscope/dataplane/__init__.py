"""Knative's Kafka data plane, locally: Triggers, KafkaSources and PingSources as `knative/` declares them."""
