module kanade/examples

go 1.26.0
