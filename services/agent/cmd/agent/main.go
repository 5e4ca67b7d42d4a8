// Command agent runs scripts on this endpoint for kanade. See package agent.
package main

import (
	"context"
	"os"

	"kanade/libs/process"
	"kanade/services/agent"
)

func main() {
	os.Exit(process.Service[agent.Config]{
		Name: "kanade-agent", Description: "Runs scripts on this endpoint for kanade.",
		Run:    func(ctx context.Context, c agent.Config) error { return agent.Run(ctx, c, agent.Deps{}) },
		Listen: func(c agent.Config) string { return c.Listen },
	}.Main(os.Args[1:]))
}
