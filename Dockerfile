# syntax=docker/dockerfile:1
# Two images: `service` is `triptych serve`, `triton` is NVIDIA's server with what its pipeline models import.
#     docker build --target service --build-arg EXTRAS=server,onnx -t triptych .
# On the CPU give TORCH_INDEX the address that PyTorch's start page names for it; else PyTorch brings CUDA along.
ARG PYTHON=3.11
ARG TRITON=24.12-py3

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=server,onnx,openvino,lora,prompts,enhance
ARG TORCH_INDEX=""
WORKDIR /source
RUN python -m venv /opt/triptych
ENV PATH=/opt/triptych/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt ./
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY router router
COPY backends backends
COPY export export
RUN pip install --constraint constraints.txt ".[$EXTRAS]"

FROM python:${PYTHON}-slim AS service
RUN useradd --create-home --uid 1000 triptych && install -d -o triptych /state
COPY --from=build /opt/triptych /opt/triptych
ENV PATH=/opt/triptych/bin:$PATH \
    TRIPTYCH_SERVER_HOST=0.0.0.0 \
    TRIPTYCH_SERVER_STATE=/state
USER 1000
WORKDIR /home/triptych
VOLUME /state
EXPOSE 8000
HEALTHCHECK --start-period=120s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["triptych"]
CMD ["serve"]

FROM nvcr.io/nvidia/tritonserver:${TRITON} AS triton
ARG TORCH_INDEX=""
WORKDIR /source
# PyTorch's idle threads would spin on the cores that Triton needs.
ENV OMP_WAIT_POLICY=PASSIVE PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY router router
COPY backends backends
COPY export export
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --constraint constraints.txt ".[onnx]"
EXPOSE 8000 8001 8002
CMD ["tritonserver", "--model-repository=/models"]
