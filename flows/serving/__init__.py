"""What serves: Prefect's server, the deployments, services of an operator."""
