# docker build -t infomax .
# docker run --rm --gpus all --shm-size 2g --user "$(id -u):$(id -g)" -v "$PWD:/work" infomax pretrain --data photos --out runs/a
#
# torch is the one of the package index, which for Linux holds CUDA, 5 GB. For a machine without a GPU:
# docker build --build-arg TORCH_BACKEND=cpu -t infomax .
FROM python:3.12-slim
ARG TORCH_BACKEND=""
ARG EXTRAS="onnx,parquet"
RUN pip install --no-cache-dir uv
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN uv pip install --system --no-cache ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} ".[$EXTRAS]"
# Any user may run it: caches are in a folder that all can write, and libraries that ask for the user's name get one.
ENV HOME=/tmp USER=user
WORKDIR /work
ENTRYPOINT ["infomax"]
