use strict;
use warnings;

require SyTest::Homeserver::Matron;

# `run-tests.pl -I Matron`: its options, and how it makes each of its two servers.
package SyTest::HomeserverFactory::Matron;
use base qw( SyTest::HomeserverFactory );

sub _init {
   my $self = shift;
   $self->{args} = {
      binary       => $ENV{MATRON_BINARY} // "matron",
      log_level    => "info",
      room_version => "10",
      print_output => 0,
   };
   $self->SUPER::_init( @_ );
}

# Leaves out the tests of Synapse's and Dendrite's own endpoints.
sub implementation_name { return "matron" }

sub get_options {
   my $self = shift;
   my $args = $self->{args};
   return (
      'matron-binary=s'        => \$args->{binary},
      'default-room-version=s' => \$args->{room_version},
      'log-level=s'            => \$args->{log_level},
      'S|server-log+'          => \$args->{print_output},
      $self->SUPER::get_options(),
   );
}

sub print_usage {
   print STDERR <<'USAGE';
       --matron-binary PATH       - the program (default: $MATRON_BINARY, or "matron" on the PATH)
       --default-room-version V   - version of new rooms (10: SyTest's own server knows 1 to 11)
       --log-level LEVEL          - Matron's `logging.level` (info)
   -S, --server-log               - pass the servers' log lines through
USAGE
}

sub create_server {
   my $self = shift;
   return SyTest::Homeserver::Matron->new( @_, %{ $self->{args} } );
}

1;
