# The image that prefect.yaml names for Docker and Kubernetes pools. Built nowhere here: no Docker was at hand.
#   docker build -t r1-aqa-pipeline:0.1.0 .
FROM python:3.11-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends git nodejs \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt --editable .
ENV DO_NOT_TRACK=1
