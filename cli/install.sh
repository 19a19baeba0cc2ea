#!/bin/sh
# Installs RustStrom from a binary that has been built: the binary, a user, folders, a first configuration, and a
# service of systemd, or of launchd on macOS. It downloads nothing, and can be run again: to install a newer binary, or
# to repair. A configuration that is there is never touched.
set -eu

usage() {
    cat <<'END'
usage: install.sh [--binary FILE] [--prefix DIRECTORY] [--service systemd|launchd|none]
       install.sh --uninstall [--purge] [--prefix DIRECTORY] [--service …]

  --binary FILE       the binary [default: target/release/rust-strom of this repository]
  --prefix DIRECTORY  where the binary and its pages go [default: /usr/local]
  --service KIND      [default: systemd, or launchd on macOS]
  --uninstall         remove what was installed; configuration, certificates, logs and user stay
  --purge             with --uninstall: remove these too

With DESTDIR in the environment everything goes below that directory, and no user or service is touched.
END
}

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
binary=$here/../target/release/rust-strom
prefix=/usr/local
destdir=${DESTDIR:-}
action=install
purge=no
case $(uname -s) in
    Darwin) service=launchd ;;
    *) service=systemd ;;
esac

while [ $# -gt 0 ]; do
    case $1 in
        --binary | --prefix | --service)
            [ $# -ge 2 ] || fail "$1 needs a value"
            case $1 in
                --binary) binary=$2 ;;
                --prefix) prefix=${2%/} ;;
                --service) service=$2 ;;
            esac
            shift 2
            ;;
        --uninstall) action=uninstall && shift ;;
        --purge) purge=yes && shift ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && fail "unknown argument: $1" ;;
    esac
done

case $service in
    systemd | launchd | none) ;;
    *) fail "--service is systemd, launchd or none" ;;
esac
case $prefix in
    /*) ;;
    *) fail "--prefix has to be an absolute path" ;;
esac
[ "$purge" = no ] || [ "$action" = uninstall ] || fail "--purge goes with --uninstall"
if [ -z "$destdir" ] && [ "$(id -u)" -ne 0 ]; then
    fail "run it as root; or with DESTDIR, to look at what it does"
fi

target=$prefix/bin/rust-strom
config=/etc/rust-strom/config.toml
unit=/etc/systemd/system/rust-strom.service
plist=/Library/LaunchDaemons/rust-strom.plist
rotation=/etc/logrotate.d/rust-strom
page=$prefix/share/man/man8/rust-strom.8
bash=$prefix/share/bash-completion/completions/rust-strom
zsh=$prefix/share/zsh/site-functions/_rust-strom
fish=$prefix/share/fish/vendor_completions.d/rust-strom.fish

# Whether systemd runs this machine, and is to be told.
has_systemd() {
    [ -z "$destdir" ] && [ "$service" = systemd ] && [ -d /run/systemd/system ]
}

has_launchd() {
    [ -z "$destdir" ] && [ "$service" = launchd ]
}

# put MODE FILE: standard input becomes the file, all of it or nothing.
put() {
    mkdir -p "$(dirname "$destdir$2")"
    cat > "$destdir$2.new"
    chmod "$1" "$destdir$2.new"
    mv -f "$destdir$2.new" "$destdir$2"
}

make_user() {
    if [ -n "$destdir" ] || [ "$service" = launchd ] || id rust-strom > /dev/null 2>&1; then
        return 0
    fi
    if command -v useradd > /dev/null; then
        useradd --system --user-group --no-create-home --home-dir /var/lib/rust-strom --shell /usr/sbin/nologin rust-strom
    else
        # BusyBox.
        addgroup -S rust-strom
        adduser -S -D -H -h /var/lib/rust-strom -s /sbin/nologin -G rust-strom rust-strom
    fi
}

# own OWNER PATH…, where there is such a user.
own() {
    owner=$1
    shift
    if [ -z "$destdir" ] && id rust-strom > /dev/null 2>&1; then
        chown "$owner" "$@"
    fi
}

install_all() {
    if [ ! -f "$binary" ] || [ ! -x "$binary" ]; then
        fail "$binary is no program; build it with: cargo build --release"
    fi
    version=$("$binary" --version) || fail "$binary does not run on this machine"
    make_user
    put 0755 "$target" < "$binary"
    "$binary" man | put 0644 "$page"
    "$binary" completions bash | put 0644 "$bash"
    "$binary" completions zsh | put 0644 "$zsh"
    "$binary" completions fish | put 0644 "$fish"

    # A configuration may have secrets; certificates and logs are the daemon's own.
    for directory in /etc/rust-strom /var/lib/rust-strom /var/log/rust-strom; do
        if [ ! -d "$destdir$directory" ]; then
            mkdir -p "$destdir$directory"
            chmod 0750 "$destdir$directory"
            case $directory in
                /etc/*) own root:rust-strom "$directory" ;;
                *) own rust-strom:rust-strom "$directory" ;;
            esac
        fi
    done
    if [ -e "$destdir$config" ]; then
        echo "$config is there already, and stays as it is"
    else
        put 0640 "$config" < "$here/examples/quick-start.toml"
        own root:rust-strom "$config"
    fi

    case $service in
        systemd)
            sed "s,/usr/bin/rust-strom,$target,g" "$here/rust-strom.service" | put 0644 "$unit"
            put 0644 "$rotation" < "$here/logrotate/rust-strom"
            ;;
        launchd) sed "s,/usr/local/bin/rust-strom,$target,g" "$here/launchd/rust-strom.plist" | put 0644 "$plist" ;;
    esac
    if has_systemd; then
        systemctl daemon-reload
    fi
    echo "$version is installed at $target"
    "$destdir$target" --config "$destdir$config" --check || echo "edit $config before it is started" >&2
    case $service in
        systemd) echo "start it: systemctl enable --now rust-strom" ;;
        launchd) echo "start it: launchctl bootstrap system $plist" ;;
    esac
    echo "if it runs already, have it replaced by the new binary without a failed request: pkill -USR2 -x rust-strom"
}

uninstall_all() {
    if has_systemd && [ -e "$unit" ]; then
        systemctl disable --now rust-strom || true
    fi
    if has_launchd && [ -e "$plist" ]; then
        launchctl bootout system "$plist" || true
    fi
    for file in "$target" "$page" "$bash" "$zsh" "$fish"; do
        rm -f "$destdir$file"
    done
    case $service in
        systemd) rm -f "$destdir$unit" "$destdir$rotation" ;;
        launchd) rm -f "$destdir$plist" ;;
    esac
    if has_systemd; then
        systemctl daemon-reload
    fi
    if [ "$purge" = yes ]; then
        rm -rf "$destdir/etc/rust-strom" "$destdir/var/lib/rust-strom" "$destdir/var/log/rust-strom"
        if [ -z "$destdir" ] && [ "$service" != launchd ] && id rust-strom > /dev/null 2>&1; then
            if command -v userdel > /dev/null; then userdel rust-strom; else deluser rust-strom; fi
        fi
        echo "RustStrom is removed, with configuration, certificates and logs"
    else
        echo "RustStrom is removed; /etc/rust-strom, /var/lib/rust-strom and /var/log/rust-strom stay"
    fi
}

case $action in
    install) install_all ;;
    uninstall) uninstall_all ;;
esac
