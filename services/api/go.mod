module kanade/services/api

go 1.26.0

require kanade/libs/events v0.0.0
require kanade/libs/bus v0.0.0
require kanade/libs/catalog v0.0.0
require kanade/libs/readmodel v0.0.0

replace kanade/libs/events => ../../libs/events
replace kanade/libs/bus => ../../libs/bus
replace kanade/libs/catalog => ../../libs/catalog
replace kanade/libs/readmodel => ../../libs/readmodel
