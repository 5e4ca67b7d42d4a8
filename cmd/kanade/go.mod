module kanade/cmd/kanade

go 1.26.0

require kanade/examples v0.0.0

require (
	kanade/libs/bus v0.0.0
	kanade/libs/catalog v0.0.0
	kanade/libs/events v0.0.0
)

require (
	github.com/goccy/go-yaml v1.19.2
	github.com/gofrs/flock v0.13.2
	github.com/stretchr/testify v1.12.1
	github.com/tmaxmax/go-sse v0.12.0
)

require (
	github.com/alecthomas/kong v1.17.0 // indirect
	github.com/go-json-experiment/json v1.27.2 // indirect
	github.com/hashicorp/errwrap v1.1.0 // indirect
	github.com/hashicorp/go-multierror v1.1.1 // indirect
	github.com/jotaen/kong-completion v0.0.4 // indirect
	github.com/netresearch/go-cron v0.9.1 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/posener/complete v1.2.3 // indirect
	github.com/riywo/loginshell v0.0.0-20200815045211-7d26008be1ab // indirect
	go.uber.org/goleak v1.3.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace kanade/libs/events => ../../libs/events

replace kanade/libs/bus => ../../libs/bus

replace kanade/libs/catalog => ../../libs/catalog

replace kanade/libs/readmodel => ../../libs/readmodel

replace kanade/services/api => ../../services/api

replace kanade/services/projector => ../../services/projector

replace kanade/services/scheduler => ../../services/scheduler

replace kanade/services/agent => ../../services/agent

replace kanade/examples => ../../examples
