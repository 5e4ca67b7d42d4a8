// Command kanade is the command line of kanade, and with `kanade up` the whole of it in one process.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"kanade/cmd/kanade/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends what runs in good order; from then on the next one ends the process at once.
	context.AfterFunc(ctx, stop)
	code := cli.Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
