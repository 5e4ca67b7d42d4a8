// Command scheduler turns schedules and requests into commands for agents. See package scheduler.
package main

import (
	"context"
	"os"

	"kanade/libs/process"
	"kanade/services/scheduler"
)

func main() {
	os.Exit(process.Service[scheduler.Config]{
		Name: "kanade-scheduler", Description: "The scheduler of kanade: dispatch, ticks, supervision.",
		Run:    func(ctx context.Context, c scheduler.Config) error { return scheduler.Run(ctx, c, scheduler.Deps{}) },
		Listen: func(c scheduler.Config) string { return c.Listen }, GCPercent: scheduler.GCPercent,
	}.Main(os.Args[1:]))
}
