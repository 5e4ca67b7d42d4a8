module kanade/services/agent

go 1.26.0

require kanade/libs/events v0.0.0

require kanade/libs/bus v0.0.0

require (
	go.etcd.io/bbolt v1.5.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace kanade/libs/events => ../../libs/events

replace kanade/libs/bus => ../../libs/bus
