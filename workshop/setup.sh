#!/bin/sh
# Makes this checkout ready for use, and does nothing where it already is:
#
#   workshop/setup.sh venv      .venv, exactly as uv.lock says; needs no root
#   workshop/setup.sh servers   and what the local stack's servers need
#   workshop/setup.sh tests     and a browser for the tests
#
# Every step can be interrupted and repeated: a result appears under its own name
# only when it is whole. With SHOWCASE_STACK=compose or external the servers are
# somebody else's, and only .venv is made.
set -eu

UV_VERSION=0.13.9  # the oldest uv that is taken from PATH; this very one is fetched where there is none

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
found() { command -v "$1" >/dev/null 2>&1; }

clean_up() {
    if [ -n "$uv_folder" ]; then rm -rf "$uv_folder"; fi
    if [ -n "$policy" ]; then $as_root rm -f "$policy"; fi
}

# --- Debian packages --------------------------------------------------------

# here THING: whether a command, or what stands for one, is on this machine.
here() {
    case $1 in
        chromium) found chromium || found chromium-browser || found google-chrome ;;
        libcurl4) found mongod || ldconfig -p 2>/dev/null | grep -q 'libcurl\.so\.4 ' ;;  # for the wheel's mongod
        *) found "$1" ;;
    esac
}

# install THING...: the Debian packages that hold these.
install() {
    packages=$(echo "$*" | sed 's/mvn/maven/')
    if ! found apt-get; then
        refuse "$@"
    elif [ "$(id -u)" = 0 ]; then
        as_root=
    elif sudo -n true 2>/dev/null; then
        as_root='sudo -n'
    else
        refuse "$@"
    fi

    say "installing Debian packages (a minute or two): $packages"
    services=
    for thing in "$@"; do
        case $thing in rabbitmq-server | redis-server) services="$services $thing" ;; esac
    done
    if ! found erl; then services="$services epmd.socket epmd.service"; fi  # comes with RabbitMQ
    hold_services
    $as_root apt-get -qq update || say 'apt-get update failed: trying with the package lists that are here'
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends $packages >/dev/null || fail "apt-get could not install: $packages"
    release_services
}

# The workshop runs servers of its own, so no package may start its service: Debian asks
# policy-rc.d before it does. One that was there before stays as it is.
hold_services() {
    if [ -e /usr/sbin/policy-rc.d ] && ! grep -q showcase /usr/sbin/policy-rc.d; then return; fi
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\n# Left by an interrupted showcase setup: safe to delete.\nexit 101\n' |
        $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
}

# Nor may it start at the next boot.
release_services() {
    clean_up
    policy=
    if ! found systemctl; then return; fi
    for service in $services; do
        $as_root systemctl --quiet disable "$service" 2>/dev/null || true
    done
}

refuse() {
    {
        echo "setup: not found here: $(echo "$*" | sed 's/ /, /g')."
        echo '       To install that takes apt-get and root, or sudo without a password.'
        echo '       Ways on, and then the same command again:'
        echo "  apt      sudo apt-get install --no-install-recommends $packages"
        echo '  conda    conda env create -f environment.yml && conda activate showcase'
        if [ -n "$needed" ]; then
            echo '  compose  SHOWCASE_STACK=compose make run    (Docker runs the servers)'
        fi
        case " $* " in *' python3-venv '*) echo '       Instead of python3-venv, uv on PATH will do.' ;; esac
    } >&2
    exit 1
}

# --- uv and .venv -----------------------------------------------------------

# Sets $uv to a uv that is recent enough, if there is one.
find_uv() {
    uv=uv
    on_path=$(uv --version 2>/dev/null | cut -d ' ' -f 2)
    if printf '%s\n' "$UV_VERSION" "$on_path" | sort -C -V; then return; fi
    uv=$cache/uv-$UV_VERSION
    [ -x "$uv" ]
}

# By pip in a throw-away environment, for Debian's own Python takes no packages (PEP 668).
fetch_uv() {
    say "fetching uv $UV_VERSION into $cache"
    mkdir -p "$cache"
    uv_folder=$(mktemp -d "$cache/uv.XXXXXX")
    python3 -m venv "$uv_folder"
    PIP_USER=no PIP_TARGET='' PIP_PREFIX='' \
        "$uv_folder/bin/python" -m pip --quiet --disable-pip-version-check install "uv==$UV_VERSION"
    mv "$uv_folder/bin/uv" "$cache/uv-$UV_VERSION"
    rm -rf "$uv_folder"
    uv_folder=
    uv=$cache/uv-$UV_VERSION
}

# What .venv/.showcase-stamp says once .venv is whole: where it is, and what it was made from.
stamp() {
    pwd -P
    { .venv/bin/python --version; cat pyproject.toml uv.lock; echo "${UV_PYTHON-}"; } 2>&1 | sha256sum
}

venv_is_current() { [ -e .venv/.showcase-stamp ] && [ "$(stamp)" = "$(cat .venv/.showcase-stamp)" ]; }

make_venv() {
    if ! find_uv; then fetch_uv; fi
    # Without a stamp .venv was never finished; with another folder's its scripts would run over there.
    if [ "$(head -n 1 .venv/.showcase-stamp 2>/dev/null)" != "$(pwd -P)" ]; then rm -rf .venv; fi
    rm -f .venv/.showcase-stamp
    say 'installing Python packages into .venv'
    UV_PROJECT_ENVIRONMENT=.venv UV_PYTHON_PREFERENCE=${UV_PYTHON_PREFERENCE:-system} \
        "$uv" sync --quiet --locked --all-groups
    stamp >.venv/.showcase-stamp
}

# --- Kafka and Debezium -----------------------------------------------------

# Fetches the jars into the user's cache with Maven, or finds them there.
jars() { .venv/bin/python -m workshop.stack.local.jars; }

# ----------------------------------------------------------------------------

case ${1-} in
    venv) needed= ;;
    servers) needed='rabbitmq-server redis-server libcurl4' ;;
    tests) needed='rabbitmq-server redis-server libcurl4 chromium' ;;
    *) fail 'say what to set up: venv, servers or tests' ;;
esac
case ${SHOWCASE_STACK:-local} in compose | external) needed= ;; esac

CDPATH='' cd -- "$(dirname -- "$0")/.."
unset PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH VIRTUAL_ENV
PATH=$PATH:/usr/sbin:/usr/local/sbin  # where Debian keeps rabbitmq-server, and an ordinary user does not look
cache=${XDG_CACHE_HOME:-$HOME/.cache}/showcase
as_root='' policy='' uv_folder=''
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Of two at once in one checkout the second waits, and finds everything done.
exec 9<uv.lock
if found flock && ! flock --nonblock 9; then
    say 'waiting for another setup of this checkout'
    flock 9
fi

missing=
for thing in $needed; do
    if ! here "$thing"; then missing="$missing $thing"; fi
done
if ! venv_is_current && ! find_uv && ! python3 -c 'import ensurepip' 2>/dev/null; then
    missing="python3-venv $missing"
fi
# One apt-get, and one message, for everything: Maven too, unless its work is done already.
if [ -n "$missing" ] && [ -n "$needed" ] && ! found mvn && ! jars 2>/dev/null; then
    missing="$missing mvn"
fi
if [ -n "$missing" ]; then install $missing; fi

if ! venv_is_current; then make_venv; fi

if [ -n "$needed" ]; then
    if found mvn; then
        jars
    elif ! jars 2>/dev/null; then
        install mvn
        jars
    fi
    .venv/bin/python -m workshop.stack.local.ahead
fi
