package up

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/services/agent"
	"kanade/services/api"
	"kanade/services/projector"
	"kanade/services/scheduler"
)

// service is one part: its name and its Run, on a connection of its own.
type service struct {
	name string
	run  func(ctx context.Context, b *bus.Bus, logger *slog.Logger) error
}

// services lists the parts in the order in which they start.
func (s *System) services(c Config, listener net.Listener) []service {
	readModel := s.Home.Path("readmodel")
	list := []service{
		{"projector", func(ctx context.Context, b *bus.Bus, logger *slog.Logger) error {
			return projector.Run(ctx, projector.Config{ReadModelDir: readModel, Rebuild: c.Rebuild}, projector.Deps{Bus: b, Logger: logger, Metrics: s.metrics})
		}},
		{"scheduler", func(ctx context.Context, b *bus.Bus, logger *slog.Logger) error {
			return scheduler.Run(ctx, scheduler.Config{Limits: Limits()}, scheduler.Deps{
				Bus: b, Logger: logger, Metrics: s.metrics, Ready: func() { close(s.scheduling) },
			})
		}},
		{"api", func(ctx context.Context, b *bus.Bus, logger *slog.Logger) error {
			return api.Run(ctx, api.Config{ReadModelDir: readModel, AuthToken: s.Home.APIToken, Limits: Limits()},
				api.Deps{Bus: b, Listener: listener, Logger: logger, Metrics: s.metrics})
		}},
	}
	if c.Agent {
		list = append(list, service{"agent", func(ctx context.Context, b *bus.Bus, logger *slog.Logger) error {
			return agent.Run(ctx, agent.Config{ID: s.PC, Data: s.Home.Path("agent")}, agent.Deps{Bus: b, Logger: logger, Metrics: s.metrics})
		}})
	}
	return list
}

// startServices starts all of them. The listener belongs to the api afterwards.
func (s *System) startServices(ctx context.Context, c Config, b *broker.Broker, listener net.Listener) error {
	if c.Agent {
		s.PC = c.PC
		if s.PC == "" {
			s.PC = hostID()
		}
	}
	list := s.services(c, listener)
	connections := make([]*bus.Bus, len(list))
	for i, x := range list {
		c, err := s.connect(ctx, b, x.name)
		if err != nil {
			return err
		}
		connections[i] = c
		s.closers = append(s.closers, func() error { c.Close(); return nil })
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	for i, x := range list {
		logger := s.logger.With("part", x.name)
		s.run(running, x.name, func(ctx context.Context) error { return x.run(ctx, connections[i], logger) })
	}
	return nil
}

// ready waits until the scheduler works and the API says that all it needs is there, and gives up when a service ends or
// ctx does. All means that the read model holds what the log held when the API was first there: a schema that has changed
// is built first, then served.
func (s *System) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not ready after %s; see %s", readyTimeout, s.Home.Path("kanade.log")))
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	scheduling, goal := s.scheduling, uint64(0)
	for {
		if scheduling == nil {
			if r, err := askReady(ctx, client, s.URL); err == nil {
				goal = cmp.Or(goal, r.Broker.LastSequence)
				if r.ReadModel.AppliedSequence >= goal {
					return nil
				}
			}
		}
		select {
		case <-scheduling:
			scheduling = nil
			continue
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.done:
			return errors.New("it did not become ready") // Stop says why
		case <-tick.C:
		}
	}
}

// readiness is what matters of the API's own.
type readiness struct {
	Broker struct {
		LastSequence uint64 `json:"last_sequence"`
	} `json:"broker"`
	ReadModel struct {
		AppliedSequence uint64 `json:"applied_sequence"`
	} `json:"read_model"`
}

func askReady(ctx context.Context, client *http.Client, url string) (readiness, error) {
	var state readiness
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return state, err
	}
	answer, err := client.Do(r)
	if err != nil {
		return state, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return state, fmt.Errorf("not ready: %s", answer.Status)
	}
	return state, json.NewDecoder(answer.Body).Decode(&state)
}
