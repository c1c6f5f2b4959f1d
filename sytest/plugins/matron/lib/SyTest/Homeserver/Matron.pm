use strict;
use warnings;

# One Matron under SyTest: its configuration, its start.
package SyTest::Homeserver::Matron;
use base qw( SyTest::Homeserver );

use Cwd qw( getcwd );
use File::Path qw( remove_tree );
use JSON ();

use SyTest::SSL qw( ensure_ssl_key create_ssl_cert );

sub _init {
   my ( $self, $args ) = @_;
   for my $name ( qw( binary log_level room_version print_output ) ) {
      $self->{$name} = delete $args->{$name};
   }
   $self->SUPER::_init( $args );
   $self->{port} = main::alloc_port( "matron[$self->{hs_index}]" );
}

# An address with a port as the server's name: nobody looks up .well-known or SRV.
sub server_name     { my $self = shift; return "$self->{bind_host}:$self->{port}" }
sub federation_host { my $self = shift; return $self->{bind_host} }
sub federation_port { my $self = shift; return $self->{port} }
sub public_baseurl  { my $self = shift; return "https://$self->{bind_host}:$self->{port}" }

sub start {
   my $self = shift;

   # What an earlier run left: its data may be of another server name, and SyTest counts on empty servers.
   remove_tree( "$self->{hs_dir}/data" );
   my $config = $self->write_json_file( "matron.json", $self->_config );

   my $name    = "matron-$self->{hs_index}";
   my $started = $self->_start_process_and_await_connectable(
      command      => [ $self->{binary}, "--config", $config ],
      connect_host => $self->{bind_host},
      connect_port => $self->{port},
      name         => $name,
   );
   if( $self->{print_output} ) {
      $_->print_output = 1 for values %{ $self->{proc_info} };
   }
   return $started;
}

sub _config {
   my $self = shift;
   my $dir  = $self->{hs_dir};
   my ( $yes, $no ) = ( JSON::true, JSON::false );

   my %listen = (
      address         => "$self->{bind_host}:$self->{port}",
      tls_certificate => "$dir/tls.crt",
      tls_key         => "$dir/tls.key",
   );
   ensure_ssl_key( $listen{tls_key} );
   create_ssl_cert( $listen{tls_certificate}, $listen{tls_key}, $self->{bind_host} );

   return {
      server_name          => $self->server_name,
      public_base_url      => $self->public_baseurl,
      data_dir             => "$dir/data",
      listen               => \%listen,
      logging              => { level => $self->{log_level} },
      default_room_version => $self->{room_version},
      room_versions        => [ map { "$_" } 1 .. 12 ],
      appservices          => $self->{app_service_config_files} // [],

      # Everybody comes from one address, many at a time, and each with a password.
      registration => {
         mode          => "open",
         guests        => $yes,
         shared_secret => "reg_secret",
         recaptcha     => $self->_recaptcha,
      },
      rate_limit   => $no,
      insecure_fast_password_hash => $yes,
      # SyTest sends access tokens in the query only.
      access_token_in_query => $yes,

      # SyTest's CAS server knows only its older address for tickets, its browser keeps no cookies, and the users that
      # it vouches for have registered before.
      oauth => {
         upstreams => [ {
            protocol                 => "cas",
            id                       => "cas",
            name                     => "SyTest's CAS",
            issuer                   => $self->{cas_config}{server_url},
            validation               => "proxyValidate",
            link_existing            => $yes,
            insecure_without_cookies => $yes,
         } ],
      },

      public_rooms_without_auth    => $yes,
      public_rooms_over_federation => $yes,
      anyone_may_publish           => $yes,

      # SyTest's identity servers listen on whatever port is free.
      identity_servers => [ "$self->{bind_host}:*", "localhost:*" ],

      # Its mail server speaks no TLS.
      $self->_email,

      # Push gateways are looked at for the content that they are told.
      push_includes_content => $yes,
      push_legacy_mentions  => $yes,
      # SyTest's media tests use the paths from before authenticated media, and one of them previews a page.
      unauthenticated_media => $yes,
      url_previews          => $yes,

      # MSC2753, and previews that tell who is there and has read what; MSC2228, whose tests wait for two seconds.
      peeking   => $yes,
      retention => { self_destruct => $yes, interval_ms => 200, grace_ms => 1000 },

      # SyTest's own servers are all on loopback, behind its own authority; its identity server
      # has a certificate that nobody signed.
      federation => {
         ca_files                 => [ getcwd() . "/keys/ca.crt" ],
         allow_ip_ranges          => [ "127.0.0.0/8", "::1/128" ],
         insecure_skip_tls_verify => $yes,
      },
   };
}

# One test solves a captcha; all the others register without.
sub _recaptcha {
   my $self   = shift;
   my $config = $self->{recaptcha_config} or return {};
   my ( $url ) = $config->{siteverify_api} =~ m{^(.*)/api/siteverify$} or die "no address of a captcha";
   return {
      public_key => $config->{public_key},
      secret     => $config->{private_key},
      url        => $url,
      required   => JSON::false,
   };
}

sub _email {
   my $self = shift;
   my $mail = $self->{smtp_server_config} or return;
   return (
      email => {
         server => "$mail->{host}:$mail->{port}",
         tls    => "none",
         from   => "matron\@sytest.example",
         # It presses no button.
         insecure_proved_by_opening => JSON::true,
      },
   );
}

1;
