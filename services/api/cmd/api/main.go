// Command api serves the HTTP of kanade. See package api.
package main

import (
	"context"
	"os"

	"kanade/libs/process"
	"kanade/services/api"
)

func main() {
	os.Exit(process.Service[api.Config]{
		Name: "kanade-api", Description: "The HTTP API of kanade.",
		Run:    func(ctx context.Context, c api.Config) error { return api.Run(ctx, c, api.Deps{}) },
		Listen: func(c api.Config) string { return c.Listen },
	}.Main(os.Args[1:]))
}
