module kanade/structure

go 1.26.0
