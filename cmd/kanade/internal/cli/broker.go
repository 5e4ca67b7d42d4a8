package cli

import (
	"context"
	"fmt"
	"log/slog"

	"kanade/libs/bus/broker"
)

type brokerCmd struct {
	Config string `short:"c" required:"" type:"existingfile" help:"Configuration of the NATS server; deploy/ holds one." placeholder:"FILE"`
}

func (c *brokerCmd) Run(ctx context.Context, a *app) error {
	b, err := broker.Start(broker.Config{File: c.Config, Logger: slog.New(slog.NewTextHandler(a.err, nil))})
	if err != nil {
		return fmt.Errorf("broker of %s: %w", c.Config, err)
	}
	defer b.Shutdown()
	fmt.Fprintf(a.err, "broker listens at %s, streams are in %s\n", b.URL(), b.StoreDir())
	<-ctx.Done()
	return nil
}
