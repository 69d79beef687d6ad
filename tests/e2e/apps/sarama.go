// A member and a producer as the sidecar's pubsub.kafka component sets them up: the same library, the same options.
//
//	sarama consume BROKERS GROUP TOPIC range|roundrobin|sticky   says what it is assigned and what it reads, until SIGTERM
//	sarama produce BROKERS TOPIC EVENTS USERS                    says where each event went
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/IBM/sarama"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type handler struct{}

func (handler) Setup(session sarama.ConsumerGroupSession) error {
	assigned := 0
	for _, partitions := range session.Claims() {
		assigned += len(partitions)
	}
	fmt.Println("assigned", assigned)
	return nil
}

func (handler) Cleanup(sarama.ConsumerGroupSession) error { return nil }

// One record after another; the offset is marked once it is handled.
func (handler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			fmt.Println("read", message.Partition, message.Offset)
			session.MarkMessage(message, "")
			time.Sleep(5 * time.Millisecond)
		case <-session.Context().Done():
			return nil
		}
	}
}

func consume(broker, group, topic, strategy string) {
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	strategies := map[string]sarama.BalanceStrategy{
		"range":      sarama.NewBalanceStrategyRange(),
		"roundrobin": sarama.NewBalanceStrategyRoundRobin(),
		"sticky":     sarama.NewBalanceStrategySticky(),
	}
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategies[strategy]}
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	member, err := sarama.NewConsumerGroup([]string{broker}, group, config)
	check(err)
	context, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	for context.Err() == nil {
		if err := member.Consume(context, []string{topic}, handler{}); err != nil && context.Err() == nil {
			fmt.Fprintln(os.Stderr, err)
			time.Sleep(100 * time.Millisecond)
		}
	}
	check(member.Close())
}

func produce(broker, topic string, events, users int) {
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	producer, err := sarama.NewSyncProducer([]string{broker}, config)
	check(err)
	for n := range events {
		user := fmt.Sprintf("user-%d", n%users)
		event := fmt.Sprintf(`{"event_id":"%s-%d","event_type":"task.completed","user_id":"%s","task_id":%d}`, topic, n, user, n)
		partition, _, err := producer.SendMessage(&sarama.ProducerMessage{
			Topic: topic, Key: sarama.StringEncoder(user), Value: sarama.StringEncoder(event),
		})
		check(err)
		fmt.Println("wrote", partition, user)
	}
	check(producer.Close())
}

func main() {
	args := os.Args[1:]
	switch args[0] {
	case "consume":
		consume(args[1], args[2], args[3], args[4])
	case "produce":
		events, err := strconv.Atoi(args[3])
		check(err)
		users, err := strconv.Atoi(args[4])
		check(err)
		produce(args[1], args[2], events, users)
	}
}
