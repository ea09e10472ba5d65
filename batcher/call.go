package batcher

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// overdue is how long after the end of its context a call into a sink may take
// to return before it is said.
const overdue = 10 * time.Second

// call runs a call into the sink's code with the sink's timeout. A panic is the
// call's error, unless *ours says that it did not come from the sink. The call is
// waited for, however long: two at a time would break what sinks are promised.
func (c *courier) call(ctx context.Context, what string, ours *bool, f func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	defer c.watch(limited, what)()
	err := guard(ours, func() error { return f(limited) })
	if err != nil && ctx.Err() == nil && errors.Is(limited.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no success within %v: %w", c.cfg.Timeout, err)
	}
	return err
}

// guard turns a panic of f into an error.
func guard(ours *bool, f func() error) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if ours != nil && *ours {
			panic(p)
		}
		err = &PanicError{Value: p, Stack: debug.Stack()}
	}()
	return f()
}

// watch says when a call has not returned a while after its context ended. The
// caller calls what it returns when the call is back.
func (c *courier) watch(ctx context.Context, what string) (returned func()) {
	back, over := make(chan struct{}), make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		defer close(over)
		t := time.NewTimer(overdue)
		defer t.Stop()
		select {
		case <-back:
		case <-t.C:
			c.logger.Error("sink does not return although its time is over; only a restart ends that", "call", what)
		}
	})
	return func() {
		close(back)
		if !unwatch() {
			<-over
		}
	}
}
