// A reader of one DDS topic and one writer an enclave, each secured as ROS 2 secures its processes.
// Prints for each writer: refused (its own permissions forbid the topic), unmatched, or how many
// samples the reader took from it.
//
//   peer TOPIC TYPE READER WRITER...     enclave folders of an SROS2 keystore; - : no security
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <fastdds/dds/domain/DomainParticipant.hpp>
#include <fastdds/dds/domain/DomainParticipantFactory.hpp>
#include <fastdds/dds/publisher/DataWriter.hpp>
#include <fastdds/dds/publisher/Publisher.hpp>
#include <fastdds/dds/subscriber/DataReader.hpp>
#include <fastdds/dds/subscriber/SampleInfo.hpp>
#include <fastdds/dds/subscriber/Subscriber.hpp>
#include <fastdds/dds/topic/TopicDataType.hpp>
#include <fastdds/rtps/transport/UDPv4TransportDescriptor.h>
#include <fastrtps/xmlparser/XMLProfileManager.h>

using namespace eprosima::fastdds::dds;
using eprosima::fastrtps::rtps::InstanceHandle_t;
using eprosima::fastrtps::rtps::SerializedPayload_t;

const int kDomain = std::stoi(std::getenv("ROS_DOMAIN_ID"));
constexpr auto kDiscovery = std::chrono::seconds(12);

// Eight bytes that name the writer, whatever the topic's type is called
class Raw : public TopicDataType {
 public:
  explicit Raw(const std::string& name) {
    setName(name.c_str());
    m_typeSize = 12;
    m_isGetKeyDefined = false;
  }
  bool serialize(void* data, SerializedPayload_t* payload) override {
    std::memset(payload->data, 0, 4);
    payload->data[1] = 1;  // CDR, little endian
    std::memcpy(payload->data + 4, data, 8);
    payload->length = 12;
    return true;
  }
  bool deserialize(SerializedPayload_t* payload, void* data) override {
    std::memcpy(data, payload->data + 4, 8);
    return true;
  }
  std::function<uint32_t()> getSerializedSizeProvider(void*) override {
    return [] { return 12u; };
  }
  void* createData() override { return new int64_t; }
  void deleteData(void* data) override { delete static_cast<int64_t*>(data); }
  bool getKey(void*, InstanceHandle_t*, bool) override { return false; }
};

// The properties that rmw_fastrtps sets for an enclave
DomainParticipantQos secured(const std::string& enclave) {
  DomainParticipantQos qos;
  qos.name(enclave);
  // Another version of Fast DDS on this machine lays its shared memory out differently
  qos.transport().use_builtin_transports = false;
  qos.transport().user_transports.push_back(
      std::make_shared<eprosima::fastdds::rtps::UDPv4TransportDescriptor>());
  if (enclave == "-") return qos;
  auto& list = qos.properties().properties();
  const std::string at = "file://" + enclave + "/";
  const std::string auth = "dds.sec.auth.builtin.PKI-DH.";
  const std::string access = "dds.sec.access.builtin.Access-Permissions.";
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{
           {"dds.sec.auth.plugin", "builtin.PKI-DH"},
           {auth + "identity_ca", at + "identity_ca.cert.pem"},
           {auth + "identity_certificate", at + "cert.pem"},
           {auth + "private_key", at + "key.pem"},
           {"dds.sec.crypto.plugin", "builtin.AES-GCM-GMAC"},
           {"dds.sec.access.plugin", "builtin.Access-Permissions"},
           {access + "permissions_ca", at + "permissions_ca.cert.pem"},
           {access + "governance", at + "governance.p7s"},
           {access + "permissions", at + "permissions.p7s"}}) {
    list.emplace_back(key, value);
  }
  return qos;
}

int main(int argc, char** argv) {
  if (argc < 5) {
    std::cerr << "peer TOPIC TYPE READER WRITER...\n";
    return 2;
  }
  // Or participants of one process would hand samples over without the transport
  eprosima::fastrtps::LibrarySettingsAttributes settings;
  settings.intraprocess_delivery = eprosima::fastrtps::INTRAPROCESS_OFF;
  eprosima::fastrtps::xmlparser::XMLProfileManager::library_settings(settings);
  auto* factory = DomainParticipantFactory::get_instance();
  const std::string topic = argv[1], type = argv[2];
  TypeSupport support(new Raw(type));
  auto* home = factory->create_participant(kDomain, secured(argv[3]));
  if (home == nullptr) {
    std::cerr << "reader " << argv[3] << ": no participant\n";
    return 1;
  }
  support.register_type(home);
  DataReaderQos take_all = DATAREADER_QOS_DEFAULT;
  take_all.reliability().kind = RELIABLE_RELIABILITY_QOS;
  take_all.history().kind = KEEP_ALL_HISTORY_QOS;
  auto* reader = home->create_subscriber(SUBSCRIBER_QOS_DEFAULT)
                     ->create_datareader(home->create_topic(topic, type, TOPIC_QOS_DEFAULT),
                                         take_all);
  if (reader == nullptr) {
    std::cout << "reader " << argv[3] << ": refused\n";
    return 1;
  }
  std::map<int64_t, DataWriter*> writers;
  std::map<int64_t, int> taken;
  for (int64_t i = 4; i < argc; ++i) {
    auto* participant = factory->create_participant(kDomain, secured(argv[i]));
    if (participant == nullptr) continue;
    support.register_type(participant);
    writers[i] = participant->create_publisher(PUBLISHER_QOS_DEFAULT)
                     ->create_datawriter(participant->create_topic(topic, type, TOPIC_QOS_DEFAULT),
                                         DATAWRITER_QOS_DEFAULT);
  }
  const auto end = std::chrono::steady_clock::now() + kDiscovery;
  while (std::chrono::steady_clock::now() < end) {
    for (auto& [i, writer] : writers) {
      int64_t own = i;
      if (writer != nullptr) writer->write(&own);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    int64_t from = 0;
    SampleInfo info;
    while (reader->take_next_sample(&from, &info) == ReturnCode_t::RETCODE_OK)
      if (info.valid_data) ++taken[from];
  }
  for (int64_t i = 4; i < argc; ++i) {
    std::cout << argv[i] << ": ";
    if (writers.count(i) == 0) {
      std::cout << "no participant\n";
    } else if (writers[i] == nullptr) {
      std::cout << "refused\n";
    } else {
      PublicationMatchedStatus status;
      writers[i]->get_publication_matched_status(status);
      std::cout << (taken[i] > 0 ? "taken " + std::to_string(taken[i])
                                 : status.current_count > 0 ? "matched, nothing taken" : "unmatched")
                << "\n";
    }
  }
  std::cout.flush();
  std::_Exit(0);
}
