module kanade/libs/bus

go 1.26.0

require kanade/libs/events v0.0.0

replace kanade/libs/events => ../../libs/events
