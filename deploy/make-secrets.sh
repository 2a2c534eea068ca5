#!/bin/sh
# Makes the secrets of docker-compose.yml, once: what exists is never replaced, for whoever loses the
# master key loses all personal data. Keep a copy of the file in a safe place.
set -eu
cd "$(dirname "$0")/.."
umask 077
if [ -e .env ]; then
    echo "there is a .env already; nothing was changed" >&2
    exit 1
fi
# Hexadecimal digits stand in a URL as they are.
cat > .env.new <<SECRETS
POSTGRES_PASSWORD=$(openssl rand -hex 24)
GUISHU_OWNER_PASSWORD=$(openssl rand -hex 24)
GUISHU_SERVICE_PASSWORD=$(openssl rand -hex 24)
GUISHU_MASTER_KEY=$(openssl rand -base64 32)
SECRETS
mv .env.new .env
echo "made .env, which only you may read: keep a copy of it in a safe place"
