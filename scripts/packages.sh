# Sourced by the other scripts: what building and testing needs from Debian 12.
QLORA_BUILD_PACKAGES="g++ cmake ninja-build pkg-config libeigen3-dev libyaml-cpp-dev libsqlite3-dev libfmt-dev
  nlohmann-json3-dev libcli11-dev libspdlog-dev libpcre2-dev libicu-dev libsentencepiece-dev libssl-dev zlib1g-dev
  libcurl4-openssl-dev libsnappy-dev libzstd-dev"
QLORA_TEST_PACKAGES="catch2 python3 binutils git"
QLORA_QUICKSTART_PACKAGES="python3 python3-pip"
# Yardsticks of the benchmark, never of the product.
QLORA_BENCH_PACKAGES="libdnnl-dev libopenblas-openmp-dev libtcmalloc-minimal4 python3"
