package kafka

import (
	"fmt"
	"path/filepath"
	"strings"
)

// properties is the configuration of node i: a listener for clients, shaped by
// the options; one for the controllers; and one in plaintext between brokers,
// which tests use too whatever the clients' listener asks for.
func (c *Cluster) properties(i int) string {
	nodes := len(c.nodes)
	replicas, minISR := 1, 1
	if nodes == 3 {
		replicas, minISR = 3, 2
	}
	var voters []string
	for n := range c.nodes {
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", n+1, c.ports[3*n+1]))
	}
	clients, controller, internal := c.ports[3*i], c.ports[3*i+1], c.ports[3*i+2]
	lines := []string{
		"process.roles=broker,controller",
		fmt.Sprintf("node.id=%d", i+1),
		"controller.quorum.voters=" + strings.Join(voters, ","),
		fmt.Sprintf("listeners=CLIENT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d,INTERNAL://127.0.0.1:%d", clients, controller, internal),
		fmt.Sprintf("advertised.listeners=CLIENT://127.0.0.1:%d,INTERNAL://127.0.0.1:%d", clients, internal),
		"listener.security.protocol.map=CLIENT:" + c.protocol() + ",CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT",
		"controller.listener.names=CONTROLLER",
		"inter.broker.listener.name=INTERNAL",
		"log.dirs=" + filepath.Join(c.nodeDir(i), "data"),
		"auto.create.topics.enable=false",
		fmt.Sprintf("default.replication.factor=%d", replicas),
		"num.network.threads=2",
		"num.io.threads=4",
		"log.cleaner.dedupe.buffer.size=4194304",
		// Quick for tests: no wait for more members, few internal partitions, a
		// dead broker is fenced soon, expiry is looked at often, and a log start
		// that was moved survives a kill a second later.
		"group.initial.rebalance.delay.ms=0",
		"offsets.topic.num.partitions=4",
		fmt.Sprintf("offsets.topic.replication.factor=%d", replicas),
		"transaction.state.log.num.partitions=4",
		fmt.Sprintf("transaction.state.log.replication.factor=%d", replicas),
		fmt.Sprintf("transaction.state.log.min.isr=%d", minISR),
		"share.coordinator.state.topic.num.partitions=4",
		fmt.Sprintf("share.coordinator.state.topic.replication.factor=%d", replicas),
		fmt.Sprintf("share.coordinator.state.topic.min.isr=%d", minISR),
		"broker.heartbeat.interval.ms=500",
		"broker.session.timeout.ms=3000",
		"replica.lag.time.max.ms=5000",
		"log.initial.task.delay.ms=500",
		"log.retention.check.interval.ms=1000",
		"log.cleaner.backoff.ms=500",
		"log.flush.start.offset.checkpoint.interval.ms=1000",
		"message.max.bytes=67108864",
		"replica.fetch.max.bytes=67108864",
		"socket.request.max.bytes=134217728",
	}
	lines = append(lines, c.security()...)
	lines = append(lines, c.options.Set...)
	return strings.Join(lines, "\n") + "\n"
}

func (c *Cluster) protocol() string {
	protocol := "PLAINTEXT"
	if c.options.TLS || c.options.MutualTLS {
		protocol = "SSL"
	}
	if c.options.SASL != "" {
		protocol = "SASL_" + protocol
	}
	return protocol
}

func (c *Cluster) security() []string {
	var lines []string
	if c.options.TLS || c.options.MutualTLS {
		auth := "none"
		if c.options.MutualTLS {
			auth = "required"
		}
		lines = append(lines,
			"listener.name.client.ssl.keystore.type=PEM",
			"listener.name.client.ssl.keystore.location="+filepath.Join(c.tlsDir(), "server.pem"),
			"listener.name.client.ssl.truststore.type=PEM",
			"listener.name.client.ssl.truststore.location="+c.CA(),
			"listener.name.client.ssl.client.auth="+auth)
	}
	switch {
	case c.options.SASL == "PLAIN":
		lines = append(lines,
			"listener.name.client.sasl.enabled.mechanisms=PLAIN",
			fmt.Sprintf("listener.name.client.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_%s=%q;", User, Password))
	case c.options.SASL != "":
		lines = append(lines,
			"listener.name.client.sasl.enabled.mechanisms="+c.options.SASL,
			"listener.name.client."+strings.ToLower(c.options.SASL)+".sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;")
	}
	return lines
}
