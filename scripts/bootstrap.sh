# Sourced by ./check and ./demo: the one thing that the Python behind them cannot bring is Python.
if ! command -v python3 > /dev/null; then
  if [ "$(id -u)" = 0 ]; then as_root=""; elif sudo -n true 2> /dev/null; then as_root="sudo -n"; else
    echo "Python 3 is missing. As root, run:  apt-get install --no-install-recommends python3" >&2
    exit 1
  fi
  echo "installing python3"
  $as_root apt-get -q update > /dev/null && $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
    --no-install-recommends install python3 > /dev/null || { echo "python3 could not be installed" >&2; exit 1; }
fi
export PYTHONDONTWRITEBYTECODE=1
