module kanade/libs/events

go 1.26.0


