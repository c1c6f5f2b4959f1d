{
  description = "Matron: a Matrix homeserver for healthcare federation";

  # Rust 1.95 or later is needed: a channel that has it.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forAll = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      version = (builtins.fromTOML (builtins.readFile ./Cargo.toml)).workspace.package.version;

      # A hospital's build: the server without the demo and the client library that the demo drives.
      matron =
        pkgs:
        pkgs.rustPlatform.buildRustPackage {
          pname = "matron";
          inherit version;
          src = self;
          cargoLock.lockFile = ./Cargo.lock;
          buildAndTestSubdir = "homeserver/server";
          buildNoDefaultFeatures = true;
          buildType = "dist";
          # The tests are a check of their own: they need loopback and longer than a package should.
          doCheck = false;
          meta = {
            description = "Matrix homeserver for healthcare federation";
            license = pkgs.lib.licenses.asl20;
            mainProgram = "matron";
          };
        };

      check =
        pkgs: name: command:
        (matron pkgs).overrideAttrs (old: {
          pname = "matron-${name}";
          nativeBuildInputs = old.nativeBuildInputs ++ [
            pkgs.clippy
            pkgs.rustfmt
          ];
          buildPhase = command;
          installPhase = "touch $out";
          doInstallCheck = false;
        });
    in
    {
      packages = forAll (pkgs: {
        default = matron pkgs;
      });

      checks = forAll (pkgs: {
        package = matron pkgs;
        format = check pkgs "format" "cargo fmt --all --check";
        clippy = check pkgs "clippy" "cargo clippy --workspace --all-targets --offline -- -D warnings";
        # The public clients come from npm, which a build cannot reach: `.ci/run` and `cargo test` run them.
        tests = check pkgs "tests" "cargo test --workspace --offline -- --skip clients::";
      });

      devShells = forAll (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ (matron pkgs) ];
          packages = [
            pkgs.cargo-deny
            pkgs.chromium
            pkgs.clippy
            pkgs.mdbook
            pkgs.nodejs_22
            pkgs.rustfmt
          ];
        };
      });

      nixosModules.default =
        {
          config,
          lib,
          pkgs,
          ...
        }:
        let
          cfg = config.services.matron;
          toml = pkgs.formats.toml { };
          configFile = toml.generate "matron.toml" cfg.settings;
        in
        {
          options.services.matron = {
            enable = lib.mkEnableOption "Matron, a Matrix homeserver for healthcare federation";
            package = lib.mkOption {
              type = lib.types.package;
              default = self.packages.${pkgs.stdenv.hostPlatform.system}.default;
              defaultText = lib.literalExpression "matron.packages.\${system}.default";
              description = "The package that runs.";
            };
            settings = lib.mkOption {
              type = toml.type;
              default = { };
              example = {
                server_name = "matrix.example.org";
                registration.shared_secret_file = "/run/credentials/matron.service/registration";
              };
              description = ''
                The configuration; `matron config example` prints every key. It lands in the world-readable
                store: give secrets by file path, never by value.
              '';
            };
            credentials = lib.mkOption {
              type = lib.types.attrsOf lib.types.str;
              default = { };
              example = {
                registration = "/etc/secrets/matron-registration";
              };
              description = "Secret files, readable for the service below /run/credentials/matron.service.";
            };
            openFirewall = lib.mkEnableOption "the port of the main listener in the firewall";
          };

          config = lib.mkIf cfg.enable {
            services.matron.settings.data_dir = lib.mkDefault "/var/lib/matron";


            networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [
              (lib.toInt (lib.last (lib.splitString ":" (cfg.settings.listen.address or "127.0.0.1:8008"))))
            ];

            systemd.services.matron = {
              description = "Matron, a Matrix homeserver for healthcare federation";
              wantedBy = [ "multi-user.target" ];
              wants = [ "network-online.target" ];
              after = [ "network-online.target" ];
              serviceConfig = {
                Type = "notify";
                ExecStart = "${lib.getExe cfg.package} --config ${configFile} serve";
                Restart = "on-failure";
                RestartSec = "2s";
                TimeoutStopSec = "30s";
                DynamicUser = true;
                StateDirectory = "matron";
                StateDirectoryMode = "0700";
                WorkingDirectory = "/var/lib/matron";
                LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") cfg.credentials;
                LimitNOFILE = 65536;
                UMask = "0077";

                AmbientCapabilities = "";
                CapabilityBoundingSet = "";
                LockPersonality = true;
                MemoryDenyWriteExecute = true;
                NoNewPrivileges = true;
                PrivateDevices = true;
                PrivateTmp = true;
                PrivateUsers = true;
                ProcSubset = "all";
                ProtectClock = true;
                ProtectControlGroups = true;
                ProtectHome = true;
                ProtectHostname = true;
                ProtectKernelLogs = true;
                ProtectKernelModules = true;
                ProtectKernelTunables = true;
                ProtectProc = "invisible";
                ProtectSystem = "strict";
                RemoveIPC = true;
                RestrictAddressFamilies = [
                  "AF_INET"
                  "AF_INET6"
                  "AF_UNIX"
                ];
                RestrictNamespaces = true;
                RestrictRealtime = true;
                RestrictSUIDSGID = true;
                SystemCallArchitectures = "native";
                SystemCallFilter = [
                  "@system-service"
                  "~@privileged"
                  "~@resources"
                ];
              };
            };
          };
        };
    };
}
