#!/bin/sh
# Installs on Debian 12 what SyTest needs. Two CPAN modules that Debian has not stand in perl-shims/.
set -eu
apt-get update -q
apt-get install -q -y --no-install-recommends perl openssl \
    libclass-method-modifiers-perl libcryptx-perl libdata-dump-perl libdbd-pg-perl libdbi-perl \
    libdigest-hmac-perl libemail-address-xs-perl libemail-mime-perl libfile-slurper-perl \
    libfuture-perl libhttp-message-perl libio-async-perl libio-async-ssl-perl \
    libio-socket-ssl-perl libjson-perl libjson-pp-perl liblist-utilsby-perl \
    libmodule-pluggable-perl libnet-async-http-perl libnet-ssleay-perl \
    libstruct-dumb-perl liburi-perl libyaml-libyaml-perl
here=$(cd "$(dirname "$0")" && pwd)
PERL5LIB=$here/perl-shims perl -MCrypt::Ed25519 -MNet::Async::HTTP::Server -MIO::Async::SSL -MYAML::XS -e 1
