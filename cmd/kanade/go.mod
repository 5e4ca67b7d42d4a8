module kanade/cmd/kanade

go 1.26.0

require kanade/libs/events v0.0.0
require kanade/libs/bus v0.0.0
require kanade/libs/catalog v0.0.0
require kanade/libs/readmodel v0.0.0
require kanade/services/api v0.0.0
require kanade/services/projector v0.0.0
require kanade/services/scheduler v0.0.0
require kanade/services/agent v0.0.0

replace kanade/libs/events => ../../libs/events
replace kanade/libs/bus => ../../libs/bus
replace kanade/libs/catalog => ../../libs/catalog
replace kanade/libs/readmodel => ../../libs/readmodel
replace kanade/services/api => ../../services/api
replace kanade/services/projector => ../../services/projector
replace kanade/services/scheduler => ../../services/scheduler
replace kanade/services/agent => ../../services/agent
