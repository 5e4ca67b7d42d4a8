// Command projector keeps a read model of kanade. See package projector.
package main

import (
	"context"
	"os"

	"kanade/libs/process"
	"kanade/services/projector"
)

func main() {
	os.Exit(process.Service[projector.Config]{
		Name: "kanade-projector", Description: "Keeps a read model of kanade.",
		Run:    func(ctx context.Context, c projector.Config) error { return projector.Run(ctx, c, projector.Deps{}) },
		Listen: func(c projector.Config) string { return c.Listen }, GCPercent: projector.GCPercent,
	}.Main(os.Args[1:]))
}
