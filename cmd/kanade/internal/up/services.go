package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/services/agent"
	"kanade/services/api"
)

// service is one part: its name and its Run, on a connection of its own.
type service struct {
	name string
	run  func(ctx context.Context, b *bus.Bus, logger *slog.Logger) error
}

// services lists the parts in the order in which they start.
func (s *System) services(c Config, listener net.Listener, metrics *prometheus.Registry) []service {
	readModel := s.Home.Path("readmodel")
	list := []service{
		{"api", func(ctx context.Context, b *bus.Bus, logger *slog.Logger) error {
			return api.Run(ctx, api.Config{ReadModelDir: readModel, AuthToken: s.Home.APIToken},
				api.Deps{Bus: b, Listener: listener, Logger: logger, Metrics: metrics})
		}},
	}
	if c.Agent {
		list = append(list, service{"agent", func(ctx context.Context, b *bus.Bus, logger *slog.Logger) error {
			return agent.Run(ctx, agent.Config{ID: s.PC, Data: s.Home.Path("agent")}, agent.Deps{Bus: b, Logger: logger, Metrics: metrics})
		}})
	}
	return list
}

// startServices starts all of them. The listener belongs to the api afterwards.
func (s *System) startServices(ctx context.Context, c Config, b *broker.Broker, listener net.Listener) error {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if c.Agent {
		s.PC = c.PC
		if s.PC == "" {
			s.PC = hostID()
		}
	}
	list := s.services(c, listener, metrics)
	connections := make([]*bus.Bus, len(list))
	for i, x := range list {
		var err error
		if connections[i], err = s.connect(ctx, b, x.name); err != nil {
			return err
		}
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	for i, x := range list {
		logger := s.logger.With("part", x.name)
		s.run(running, x.name, func(ctx context.Context) error { return x.run(ctx, connections[i], logger) })
	}
	return nil
}

// ready waits until the API says that all it needs is there, and gives up when a service ends or ctx does.
func (s *System) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not ready after %s; see %s", readyTimeout, s.Home.Path("kanade.log")))
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := askReady(ctx, client, s.URL); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.done:
			return errors.New("it did not become ready") // Stop says why
		case <-tick.C:
		}
	}
}

func askReady(ctx context.Context, client *http.Client, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
		return fmt.Errorf("%s %s", answer.Status, strings.TrimSpace(string(text)))
	}
	return nil
}
